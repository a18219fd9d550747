//! safetensors files: written whole to a temporary file beside the target and renamed over it, so that a crash leaves
//! the old file or the new one. Reading and writing happen on the run queue's thread.

use crate::promise::promise;
use crate::state::{call, with_state};
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_session::{Device, Memory};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The dtypes on both sides.
const DTYPES: [(DType, Dtype); 9] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::I32, Dtype::I32),
    (DType::U32, Dtype::U32),
    (DType::Bool, Dtype::BOOL),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::U8, Dtype::U8),
];

/// Everything of a file to write but the bytes.
struct Content {
    tensors: Vec<(String, Shape, DType)>,
    metadata: HashMap<String, String>,
}

/// Write tensors under names.
#[napi(ts_return_type = "Promise<void>")]
pub fn save_safetensors(
    env: &Env,
    path: String,
    names: Vec<String>,
    handles: Vec<f64>,
    metadata: HashMap<String, String>,
) -> napi::Result<Object<'_>> {
    promise::<()>(env, |settle| {
        call("save", |state| {
            check_names(&names, handles.len())?;
            let values = state.handles.get_all("save", &handles)?;
            let entry = |(name, value): (String, &Value)| (name, value.shape().clone(), value.dtype());
            let content = Content { tensors: names.into_iter().zip(&values).map(entry).collect(), metadata };
            let then = move |outcome: Result<Vec<Vec<u8>>>| {
                let written = outcome.and_then(|bytes| write(Path::new(&path), content, &bytes));
                settle.settle("save", written, |_, ()| Ok(()));
            };
            state.session.read_then(&values, Box::new(then))
        })
    })
}

fn check_names(names: &[String], tensors: usize) -> Result<()> {
    if names.len() != tensors {
        let message = format!("{} names for {tensors} tensors; give one each", names.len());
        return Err(Error::argument("save", message));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str()) || *name == "__metadata__") {
        Some(name) => Err(Error::argument("save", format!("the name {name:?} is taken; names must differ"))),
        None => Ok(()),
    }
}

fn write(path: &Path, content: Content, bytes: &[Vec<u8>]) -> Result<()> {
    let Content { tensors, metadata } = content;
    let views = tensors.iter().zip(bytes).map(|((name, shape, dtype), bytes)| {
        let view = TensorView::new(file_dtype(*dtype)?, shape.to_vec(), bytes);
        Ok((name, view.map_err(|error| Error::internal("save", error.to_string()))?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
    let file = safetensors::serialize(views, metadata).map_err(|error| file_error("save", path, &error))?;
    replace(path, &file).map_err(|error| file_error("save", path, &error))
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = beside(path)?;
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is the one to tell; a temporary file that cannot be removed either changes nothing.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(path)
}

/// A path in the same folder that nobody else uses: process and a counter make it so.
fn beside(path: &Path) -> std::io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(temporary))
}

/// Make the rename itself durable.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Windows syncs the folder with the file.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// What a file held.
#[napi(object)]
pub struct Loaded {
    pub names: Vec<String>,
    pub handles: Vec<f64>,
    pub metadata: HashMap<String, String>,
}

struct Read {
    tensors: Vec<(String, Shape, DType, Memory)>,
    metadata: HashMap<String, String>,
}

/// Read a file's tensors.
#[napi(ts_return_type = "Promise<{ names: string[]; handles: number[]; metadata: Record<string, string> }>")]
pub fn load_safetensors(env: &Env, path: String) -> napi::Result<Object<'_>> {
    promise::<Loaded>(env, |settle| {
        call("load", |state| {
            state.session.then(Box::new(move |device| {
                let read = device.and_then(|device| read(Path::new(&path), device));
                settle.settle("load", read, |_, read| adopt(read));
            }));
            Ok(())
        })
    })
}

/// Runs on the environment's thread, where handles live.
fn adopt(read: Read) -> Result<Loaded> {
    with_state("load", |state| {
        let mut loaded = Loaded { names: Vec::new(), handles: Vec::new(), metadata: read.metadata };
        for (name, shape, dtype, memory) in read.tensors {
            let value = state.session.adopt(memory, shape, dtype)?;
            loaded.names.push(name);
            loaded.handles.push(state.handles.add(value)?);
        }
        Ok(loaded)
    })
}

fn read(path: &Path, device: &dyn Device) -> Result<Read> {
    let bytes = fs::read(path).map_err(|error| file_error("load", path, &error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| file_error("load", path, &error))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| file_error("load", path, &error))?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let dtype = own_dtype(path, &name, view.dtype())?;
        let shape = Shape::new("load", view.shape().to_vec())?;
        if dtype == DType::Bool && view.data().iter().any(|&byte| byte > 1) {
            return Err(file_error("load", path, &format!("bool tensor {name:?} holds bytes other than 0 and 1")));
        }
        tensors.push((name, shape, dtype, device.upload(view.data())?));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Read { tensors, metadata: header.metadata().clone().unwrap_or_default() })
}

fn file_dtype(dtype: DType) -> Result<Dtype> {
    let found = DTYPES.iter().find(|(own, _)| *own == dtype).map(|(_, file)| *file);
    found.ok_or_else(|| Error::internal("save", format!("{dtype} has no name in files")))
}

fn own_dtype(path: &Path, name: &str, dtype: Dtype) -> Result<DType> {
    DTYPES.iter().find(|(_, file)| *file == dtype).map(|(own, _)| *own).ok_or_else(|| {
        let known = DTYPES.map(|(_, file)| file.to_string()).join(", ");
        let message = format!("tensor {name:?} is {dtype}, and only {known} can be read; convert the file first");
        file_error("load", path, &message)
    })
}

fn file_error(op: &str, path: &Path, reason: &dyn std::fmt::Display) -> Error {
    let action = if op == "load" { "read" } else { "write" };
    Error::new(Code::File, op, format!("cannot {action} {}: {reason}", path.display()))
}
