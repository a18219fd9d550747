//! Promises that the run queue settles: the outcome is made on its thread, turned into a JavaScript value on the
//! environment's.

use crate::errors::{guarded, to_napi};
use napi::bindgen_prelude::{Object, ToNapiValue, Uint8ArraySlice};
use napi::{Env, JsDeferred, sys};
use raphson_graph::error::Result;

type Finish<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// The side of a promise that settles it; once, from any thread.
pub struct Settle<T: ToNapiValue + 'static>(JsDeferred<T, Finish<T>>);

impl<T: ToNapiValue + 'static> Settle<T> {
    /// Reject with the error, or run `finish` on the environment's thread and resolve with what it gives.
    pub fn settle<R: Send + 'static>(
        self,
        op: &'static str,
        outcome: Result<R>,
        finish: impl FnOnce(Env, R) -> Result<T> + Send + 'static,
    ) {
        match outcome {
            Ok(result) => self.0.resolve(Box::new(move |env| guarded(op, || finish(env, result)))),
            Err(error) => self.0.reject(to_napi(error)),
        }
    }
}

/// A promise, which `start` arranges to be settled. An error of `start` itself rejects it.
pub fn promise<'env, T: ToNapiValue + 'static>(
    env: &'env Env,
    start: impl FnOnce(Settle<T>) -> napi::Result<()>,
) -> napi::Result<Object<'env>> {
    let (deferred, promise) = env.create_deferred::<T, Finish<T>>()?;
    let spare = deferred.clone();
    match start(Settle(deferred)) {
        Ok(()) => Ok(promise),
        Err(error) => {
            // Settled all the same: a promise left open would keep the process alive.
            spare.reject(error);
            Ok(promise)
        }
    }
}

/// Bytes that become a fresh `Uint8Array`, copied: memory of ours is never seen from JavaScript.
pub struct Bytes(pub Vec<u8>);

impl napi::bindgen_prelude::TypeName for Bytes {
    fn type_name() -> &'static str {
        "Uint8Array"
    }
    fn value_type() -> napi::ValueType {
        napi::ValueType::Object
    }
}

impl ToNapiValue for Bytes {
    unsafe fn to_napi_value(env: sys::napi_env, bytes: Bytes) -> napi::Result<sys::napi_value> {
        let array = Uint8ArraySlice::copy_from(&Env::from_raw(env), bytes.0)?;
        // SAFETY: `env` is the caller's, and the array was made in it.
        unsafe { ToNapiValue::to_napi_value(env, array) }
    }
}
