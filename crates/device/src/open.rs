//! Finding devices: what this machine has, what was tried, and why each was taken or passed over. What a device does is said
//! in its own module.

use crate::Device;
use crate::cpu::Cpu;
use crate::cuda::{self, Cuda};
use crate::wgpu::{Adapter, Settings, Wgpu};
use raphson_graph::error::{Code, Error, Result};

/// The environment variable that decides where code says `auto`.
const VARIABLE: &str = "RAPHSON_DEVICE";

/// What became of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is the device.
    Taken,
    /// It would do, but another comes first or was asked for.
    Usable,
    /// It is not there, or cannot be used.
    Unusable,
}

/// A candidate and its fate, for `doctor` and for error texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// As in a request: `cuda:0`, `cpu`.
    pub spec: String,
    /// For people: the GPU's name, or what was looked for.
    pub name: String,
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

impl Probe {
    fn new(spec: impl Into<String>, name: impl Into<String>, outcome: Outcome, reason: impl Into<String>) -> Probe {
        Probe { spec: spec.into(), name: name.into(), outcome, reason: reason.into() }
    }

    fn settle(&mut self, outcome: Outcome, reason: impl Into<String>) {
        self.outcome = outcome;
        self.reason = reason.into();
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Auto,
    Cpu,
    Cuda(usize),
    Wgpu(usize),
}

impl Request {
    /// The text that asks for this.
    fn spec(self) -> String {
        match self {
            Request::Auto => "auto".into(),
            Request::Cpu => "cpu".into(),
            Request::Cuda(ordinal) => format!("cuda:{ordinal}"),
            Request::Wgpu(ordinal) => format!("wgpu:{ordinal}"),
        }
    }

    /// `auto`, `cpu`, `cuda`, `cuda:1`, `wgpu`, `wgpu:1`
    fn parse(spec: &str) -> Result<Request> {
        let refuse = || {
            let known = "use \"auto\", \"cpu\", \"cuda\" or \"wgpu\", the last two maybe with a number: \"cuda:1\"";
            Error::argument("device", format!("{spec:?} is no device; {known}"))
        };
        let (kind, number) = match spec.trim().split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse::<u16>().map_err(|_| refuse())?)),
            None => (spec.trim(), None),
        };
        match (kind, usize::from(number.unwrap_or(0))) {
            ("auto", _) if number.is_none() => Ok(Request::Auto),
            ("cpu", _) if number.is_none() => Ok(Request::Cpu),
            ("cuda", number) => Ok(Request::Cuda(number)),
            ("wgpu", number) => Ok(Request::Wgpu(number)),
            _ => Err(refuse()),
        }
    }
}

/// An open device, and how it came to be this one.
pub struct Opened {
    pub device: Box<dyn Device>,
    /// As in a request, with its number: `wgpu:0`.
    pub spec: String,
    /// Why this one.
    pub reason: &'static str,
}

/// Why a device was opened.
const ASKED_FOR: &str = "it was asked for";
const BY_ENVIRONMENT: &str = "RAPHSON_DEVICE asks for it";
const FIRST: &str = "the first that works";

/// The device that `spec` asks for: `auto`, `cpu`, `cuda[:n]` or `wgpu[:n]`. Where it says `auto`, `RAPHSON_DEVICE` decides
/// if it is set; else the first that works of cuda, wgpu on a hardware adapter, cpu.
pub fn choose(spec: &str) -> Result<Opened> {
    match wanted(spec)? {
        (Request::Auto, _) => open_with_probes(spec).0,
        // Other devices are not looked at unless this one is not there.
        (request, reason) => open_one(request)
            .map(|device| Opened { device, spec: request.spec(), reason })
            .map_err(|error| Error { message: format!("{}. {}", error.message, found(&candidates())), ..error }),
    }
}

/// The device of [`choose`] alone.
pub fn open(spec: &str) -> Result<Box<dyn Device>> {
    choose(spec).map(|opened| opened.device)
}

/// The same as `choose`, with everything that there is on this machine and the fate of each, for `doctor`.
pub fn open_with_probes(spec: &str) -> (Result<Opened>, Vec<Probe>) {
    let mut probes = candidates();
    let opened = wanted(spec).and_then(|(request, reason)| take(request, reason, &mut probes));
    (opened, probes)
}

/// `spec` as `Opened` has it: `wgpu` is `wgpu:0`. An error if it is no request.
pub fn normalized(spec: &str) -> Result<String> {
    Request::parse(spec).map(Request::spec)
}

/// What is asked for, by code or else by the environment, and by which of them.
fn wanted(spec: &str) -> Result<(Request, &'static str)> {
    let by_environment = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    request(spec, by_environment.as_ref().map(|value| value.to_string_lossy()).as_deref())
}

fn request(spec: &str, by_environment: Option<&str>) -> Result<(Request, &'static str)> {
    match (Request::parse(spec)?, by_environment) {
        (Request::Auto, Some(value)) => match Request::parse(value) {
            Ok(request) => Ok((request, BY_ENVIRONMENT)),
            Err(error) => Err(Error { message: format!("{VARIABLE}: {}", error.message), ..error }),
        },
        (request, _) => Ok((request, ASKED_FOR)),
    }
}

/// Open what was asked for and mark it.
fn take(request: Request, reason: &'static str, probes: &mut [Probe]) -> Result<Opened> {
    if request != Request::Auto {
        let spec = request.spec();
        let device = open_one(request);
        if let Some(probe) = probes.iter_mut().find(|probe| probe.spec == spec) {
            match &device {
                Ok(_) => probe.settle(Outcome::Taken, reason),
                Err(error) => probe.settle(Outcome::Unusable, &error.message),
            }
        }
        return device.map(|device| Opened { device, spec, reason });
    }
    for probe in probes.iter_mut().filter(|probe| probe.outcome == Outcome::Usable) {
        match Request::parse(&probe.spec).and_then(open_one) {
            Ok(device) => {
                probe.settle(Outcome::Taken, FIRST);
                return Ok(Opened { device, spec: probe.spec.clone(), reason: FIRST });
            }
            Err(error) => probe.settle(Outcome::Unusable, error.message),
        }
    }
    let message = format!("no device works on this machine, not even the cpu. {}", found(probes));
    Err(Error::new(Code::Device, "device", message))
}

/// What there is, for an error text.
fn found(probes: &[Probe]) -> String {
    let one = |probe: &Probe| format!("{} ({}): {}", probe.spec, probe.name, probe.reason);
    let list = probes.iter().map(one).collect::<Vec<_>>().join("; ");
    format!("On this machine: {list}. `npx raphson doctor` tests them")
}

fn open_one(request: Request) -> Result<Box<dyn Device>> {
    match request {
        Request::Auto => Err(Error::internal("device", "auto is no device")),
        Request::Cpu => Ok(Box::new(Cpu::new(None)?)),
        Request::Cuda(ordinal) => Ok(Box::new(Cuda::open(ordinal)?)),
        Request::Wgpu(ordinal) => open_wgpu(ordinal),
    }
}

/// What this machine has, in the order of `auto`. Nothing is opened yet.
fn candidates() -> Vec<Probe> {
    let mut probes = cuda_candidates();
    probes.extend(wgpu_candidates());
    probes.push(Probe::new("cpu", "this machine's processor", Outcome::Usable, "it is always there"));
    probes
}

fn cuda_candidates() -> Vec<Probe> {
    let nothing = |reason: String| vec![Probe::new("cuda", "NVIDIA GPU", Outcome::Unusable, reason)];
    match cuda::list() {
        Err(error) => nothing(error.message),
        Ok(gpus) if gpus.is_empty() => nothing("the driver shows no GPU".into()),
        Ok(gpus) => {
            let probe = |(ordinal, gpu): (usize, &cuda::driver::Gpu)| {
                let spec = Request::Cuda(ordinal).spec();
                match cuda::shortcoming(gpu) {
                    Some(reason) => Probe::new(spec, &gpu.name, Outcome::Unusable, reason),
                    None => Probe::new(spec, &gpu.name, Outcome::Usable, "a GPU with a driver that will do"),
                }
            };
            gpus.iter().enumerate().map(probe).collect()
        }
    }
}

fn wgpu_candidates() -> Vec<Probe> {
    let adapters = Wgpu::adapters();
    if adapters.is_empty() {
        return vec![Probe::new("wgpu", "Vulkan, Metal or DX12", Outcome::Unusable, "no graphics adapter was found")];
    }
    let probe = |(ordinal, adapter): (usize, &Adapter)| {
        let spec = Request::Wgpu(ordinal).spec();
        if adapter.is_software {
            let reason = "a software renderer, slower than the cpu device; only when asked for";
            Probe::new(spec, &adapter.name, Outcome::Unusable, reason)
        } else {
            Probe::new(spec, &adapter.name, Outcome::Usable, "a GPU with a graphics driver")
        }
    };
    adapters.iter().enumerate().map(probe).collect()
}

fn open_wgpu(ordinal: usize) -> Result<Box<dyn Device>> {
    Ok(Box::new(Wgpu::with_settings(Settings { adapter: ordinal, ..Settings::default() })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let parsed = |spec| Request::parse(spec).ok();
        assert_eq!(parsed("auto"), Some(Request::Auto));
        assert_eq!(parsed(" cpu "), Some(Request::Cpu));
        assert_eq!(parsed("cuda"), Some(Request::Cuda(0)));
        assert_eq!(parsed("cuda:1"), Some(Request::Cuda(1)));
        assert_eq!(parsed("wgpu:12"), Some(Request::Wgpu(12)));
        for wrong in ["", "gpu", "cpu:1", "auto:0", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cuda:1:2"] {
            let error = Request::parse(wrong).expect_err(wrong);
            assert_eq!(error.code, Code::Argument);
            assert!(error.message.contains("\"cuda:1\""), "{}", error.message);
        }
    }

    #[test]
    fn the_environment_decides_only_where_code_does_not() {
        assert_eq!(request("auto", Some("cuda:1")), Ok((Request::Cuda(1), BY_ENVIRONMENT)));
        assert_eq!(request("cpu", Some("cuda:1")), Ok((Request::Cpu, ASKED_FOR)));
        assert_eq!(request("auto", None), Ok((Request::Auto, ASKED_FOR)));
        let error = request("auto", Some("gpu")).expect_err("no such device");
        assert!(error.message.starts_with("RAPHSON_DEVICE: "), "{}", error.message);
    }

    #[test]
    fn every_candidate_has_a_reason_and_one_is_taken() {
        let mut probes = candidates();
        let opened = take(Request::Auto, ASKED_FOR, &mut probes).expect("there is always a cpu");
        assert_eq!(probes.iter().filter(|probe| probe.outcome == Outcome::Taken).count(), 1);
        assert!(probes.iter().all(|probe| !probe.reason.is_empty()));
        let taken = probes.iter().find(|probe| probe.outcome == Outcome::Taken).expect("one is taken");
        assert_eq!((&taken.spec, opened.reason), (&opened.spec, FIRST));
        assert!(taken.spec.starts_with(opened.device.describe().kind));
    }

    /// On a machine without the driver this is the clean refusal; with one, a GPU of this number will not exist either.
    #[test]
    fn a_gpu_that_is_not_there_is_an_error() {
        let error = open("cuda:999").err().expect("no machine has so many");
        assert_eq!(error.code, Code::Device);
        assert!(error.message.contains("On this machine: ") && error.message.contains("; cpu ("), "{}", error.message);
        assert!(error.message.contains("driver"), "{}", error.message);
        if !cuda::is_driver_present() {
            let (_, probes) = open_with_probes("cpu");
            let cuda = probes.iter().find(|probe| probe.spec == "cuda").expect("listed with its reason");
            assert_eq!(cuda.outcome, Outcome::Unusable);
            assert!(cuda.reason.contains("libcuda"), "{}", cuda.reason);
        }
    }
}
