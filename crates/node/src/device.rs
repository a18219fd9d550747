//! Which device computes: choosing it, describing it, and what there is to choose from. How devices are found is the
//! device crate's matter.

use crate::errors::guarded;
use crate::state::{call, choose};
use napi_derive::napi;
use raphson_graph::error::{Code, Error};
use raphson_session::{Outcome, probe};

/// The device of this environment.
#[napi(object)]
pub struct DeviceInfo {
    pub kind: String,
    /// As in a request, with its number.
    pub spec: String,
    pub name: String,
    /// Why it is this one.
    pub reason: String,
    pub threads: f64,
    pub dtypes: Vec<String>,
    /// The dtype of a controller's scalars.
    pub scalar: String,
}

/// What computes.
#[napi]
pub fn device_info() -> napi::Result<DeviceInfo> {
    call("device", |state| {
        let (device, chosen) = (state.session.describe(), state.session.chosen());
        Ok(DeviceInfo {
            kind: device.kind.to_owned(),
            spec: chosen.spec.clone(),
            name: device.name.clone(),
            reason: chosen.reason.clone(),
            threads: device.threads as f64,
            dtypes: device.dtypes.iter().map(|dtype| dtype.name().to_owned()).collect(),
            scalar: device.scalar().name().to_owned(),
        })
    })
}

/// Compute on this device from now on.
#[napi]
pub fn set_device(spec: String) -> napi::Result<()> {
    guarded("device", || choose(&spec))
}

/// A candidate and its fate.
#[napi(object)]
pub struct DeviceProbe {
    pub spec: String,
    pub name: String,
    /// `taken`, `usable` or `unusable`.
    pub outcome: String,
    pub reason: String,
}

/// What a machine has.
#[napi(object)]
pub struct DeviceProbes {
    pub probes: Vec<DeviceProbe>,
    /// The device that the request comes to.
    pub chosen: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
}

/// Everything that there is, and what a request would come to. Opens no session.
#[napi]
pub fn probe_devices(spec: String) -> napi::Result<DeviceProbes> {
    guarded("device", || {
        let (outcome, probes) = probe(&spec);
        let probes = probes.into_iter().map(|probe| DeviceProbe {
            spec: probe.spec,
            name: probe.name,
            outcome: match probe.outcome {
                Outcome::Taken => "taken",
                Outcome::Usable => "usable",
                Outcome::Unusable => "unusable",
            }
            .to_owned(),
            reason: probe.reason,
        });
        let (chosen, error) = match outcome {
            Ok(spec) => (Some(spec), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(DeviceProbes { probes: probes.collect(), chosen, error })
    })
}

/// For tests: the device is gone, as when a GPU is unplugged.
#[napi]
pub fn lose_device_for_test() -> napi::Result<()> {
    call("device", |state| {
        if state.session.lose_device_for_test() {
            return Ok(());
        }
        Err(Error::new(Code::Device, "device", format!("{} cannot be lost", state.session.chosen().spec)))
    })
}
