//! What an environment (the main thread or a worker) owns: its handles and its session. Made at first use, dropped by a
//! clean-up hook of the environment.

use crate::errors::guarded;
use crate::handles::Handles;
use napi::Env;
use napi_derive::napi;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::value::Value;
use raphson_session::{Session, normalized};
use std::cell::RefCell;

/// Changes of live memory below this many bytes are not worth telling V8.
const REPORT_BYTES: i64 = 1 << 20;

/// Everything of one environment.
pub struct State {
    pub handles: Handles,
    pub session: Session,
    /// Bytes that V8 was told of.
    reported_bytes: i64,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Node calls this when an environment loads the addon.
#[napi(module_exports)]
pub fn on_load(_exports: napi::bindgen_prelude::Object, env: Env) -> napi::Result<()> {
    env.add_env_cleanup_hook((), |()| {
        // Out of the cell first: ending the session joins its thread, and nothing may find it half-ended.
        let state = STATE.with_borrow_mut(Option::take);
        drop(state);
    })?;
    Ok(())
}

/// Run `body` with the environment's state; errors and panics become JavaScript errors.
pub fn call<T>(op: &str, body: impl FnOnce(&mut State) -> Result<T>) -> napi::Result<T> {
    guarded(op, || with_state(op, body))
}

/// The same for callers that guard themselves.
pub fn with_state<T>(op: &str, body: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
    STATE.with(|cell| {
        let mut slot = cell.try_borrow_mut().map_err(|_| Error::internal(op, "the addon was entered twice"))?;
        let state = match &mut *slot {
            Some(state) => state,
            none => none.insert(State::new(Session::open("auto")?)),
        };
        body(state)
    })
}

/// [`call`] for a function whose result is one value.
pub fn call_value(op: &str, body: impl FnOnce(&Handles) -> Result<Value>) -> napi::Result<f64> {
    call(op, |state| {
        let value = body(&state.handles)?;
        state.handles.add(value)
    })
}

/// [`call`] for a function whose result is several values.
pub fn call_values(op: &str, body: impl FnOnce(&Handles) -> Result<Vec<Value>>) -> napi::Result<Vec<f64>> {
    call(op, |state| {
        let values = body(&state.handles)?;
        state.handles.add_all(values)
    })
}

/// Open the device that `spec` asks for, or leave it open if it is. While tensors or compiled functions are alive,
/// another one is an error: they live where they were made.
pub fn choose(spec: &str) -> Result<()> {
    let spec = normalized(spec)?;
    STATE.with(|cell| {
        let mut slot = cell.try_borrow_mut().map_err(|_| Error::internal("device", "the addon was entered twice"))?;
        match &mut *slot {
            None => *slot = Some(State::new(Session::open(&spec)?)),
            Some(state) if spec == "auto" || spec == state.session.chosen().spec => {}
            Some(state) => state.move_to(&spec)?,
        }
        Ok(())
    })
}

impl State {
    fn new(session: Session) -> State {
        State { handles: Handles::new(session.describe().clone()), session, reported_bytes: 0 }
    }

    fn move_to(&mut self, spec: &str) -> Result<()> {
        let (now, live) = (&self.session.chosen().spec, self.handles.live());
        if live > 0 || self.session.has_programs() {
            let what = match live {
                0 => "compiled functions are".to_owned(),
                1 => "one tensor is".to_owned(),
                _ => format!("{live} tensors are"),
            };
            let message = format!(
                "it is too late for {spec}: on {now}, {what} alive in this thread, and a thread has one device. Call setDevice \
                 before the first tensor, set RAPHSON_DEVICE={spec}, dispose of everything first, or use a worker thread"
            );
            return Err(Error::new(Code::Device, "device", message));
        }
        self.session = Session::open(spec)?;
        self.handles.set_device(self.session.describe().clone());
        Ok(())
    }

    /// Tell V8 how much memory its handles keep alive, so that it collects in time.
    pub fn report_memory(&mut self, env: &Env) -> Result<()> {
        let change = self.session.live_bytes() as i64 - self.reported_bytes;
        if change.abs() >= REPORT_BYTES {
            self.reported_bytes += change;
            env.adjust_external_memory(change).map_err(|error| crate::errors::from_napi("raphson", error))?;
        }
        Ok(())
    }
}
