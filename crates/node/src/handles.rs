//! The table of handles: JavaScript holds numbers, the values live here. A number carries the generation of its row, so
//! that one disposed of is recognised even when its row is in use again.

use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::value::Value;
use raphson_session::Description;

/// Low bits of a handle that hold the row; the 27 bits above, up to 2^53, hold the generation.
const ROW_BITS: u32 = 26;
const LAST_GENERATION: u32 = (1 << (53 - ROW_BITS)) - 1;

struct Row {
    /// From 1, so that 0 is no handle.
    generation: u32,
    value: Option<Value>,
}

/// Values by handle.
pub struct Handles {
    /// Whose dtypes values may have.
    device: Description,
    rows: Vec<Row>,
    free: Vec<u32>,
    live: usize,
}

impl Handles {
    /// An empty table for values on a device.
    pub fn new(device: Description) -> Handles {
        Handles { device, rows: Vec::new(), free: Vec::new(), live: 0 }
    }

    /// Values are on another device from now on. Handles given out before stay invalid.
    pub fn set_device(&mut self, device: Description) {
        self.device = device;
    }

    /// The dtype of a controller's scalars on this device.
    pub fn scalar(&self) -> DType {
        self.device.scalar()
    }

    /// Give a value a handle. A dtype that the device lacks is refused here, where the user's own line is.
    pub fn add(&mut self, value: Value) -> Result<f64> {
        self.device.check_dtype("device", value.dtype())?;
        let row = match self.free.pop() {
            Some(row) => row,
            None if self.rows.len() < 1 << ROW_BITS => {
                self.rows.push(Row { generation: 1, value: None });
                self.rows.len() as u32 - 1
            }
            None => return Err(Error::new(Code::Memory, "raphson", "too many live tensors (2^26); dispose of some")),
        };
        let slot = &mut self.rows[row as usize];
        slot.value = Some(value);
        self.live += 1;
        Ok((u64::from(slot.generation) << ROW_BITS | u64::from(row)) as f64)
    }

    /// The same for several.
    pub fn add_all(&mut self, values: Vec<Value>) -> Result<Vec<f64>> {
        values.into_iter().map(|value| self.add(value)).collect()
    }

    /// The value of a handle.
    pub fn get(&self, op: &str, handle: f64) -> Result<&Value> {
        row_of(handle)
            .and_then(|(row, generation)| self.rows.get(row).filter(|row| row.generation == generation))
            .and_then(|row| row.value.as_ref())
            .ok_or_else(|| disposed(op))
    }

    /// The values of several.
    pub fn get_all(&self, op: &str, handles: &[f64]) -> Result<Vec<Value>> {
        handles.iter().map(|&handle| self.get(op, handle).cloned()).collect()
    }

    /// Let a handle stand for another value.
    pub fn replace(&mut self, handle: f64, value: Value) -> Result<()> {
        let (row, generation) = row_of(handle).ok_or_else(|| disposed("run"))?;
        let slot = self.rows.get_mut(row).filter(|row| row.generation == generation);
        *slot.and_then(|row| row.value.as_mut()).ok_or_else(|| disposed("run"))? = value;
        Ok(())
    }

    /// Take a handle back. Its number is never given out again.
    pub fn remove(&mut self, handle: f64) -> Result<Value> {
        let op = "dispose";
        let (row, generation) = row_of(handle).ok_or_else(|| disposed(op))?;
        let slot = self.rows.get_mut(row).filter(|row| row.generation == generation).ok_or_else(|| disposed(op))?;
        let value = slot.value.take().ok_or_else(|| disposed(op))?;
        self.live -= 1;
        if slot.generation < LAST_GENERATION {
            slot.generation += 1;
            self.free.push(row as u32);
        }
        Ok(value)
    }

    /// Handles in use.
    pub fn live(&self) -> usize {
        self.live
    }
}

/// Row and generation; `None` for what is no handle's number.
fn row_of(handle: f64) -> Option<(usize, u32)> {
    let number = handle as u64;
    let exact = number as f64 == handle && number < 1 << 53;
    exact.then_some(((number & ((1 << ROW_BITS) - 1)) as usize, (number >> ROW_BITS) as u32))
}

fn disposed(op: &str) -> Error {
    Error::new(
        Code::Disposed,
        op,
        "this tensor was disposed of, or belongs to another thread; keep it alive until here",
    )
}
