//! Running a prepared program: outputs are allocated, one command buffer is recorded and submitted, and nothing is
//! waited for. Flags of bad indices come back by themselves and are looked at by the next run or download.

use super::Shared;
use super::faults::guarded;
use super::load::{Checked, WgpuProgram};
use super::memory::{Pooled, READ_BACK, STORAGE};
use super::place::Outer;
use super::slots::{Copy, FLAG_WORDS};
use crate::{Loaded, Memory};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError};

/// Flags on their way back.
pub struct Pending {
    staging: Pooled,
    state: Arc<AtomicU8>,
    checked: Arc<Vec<Checked>>,
}

const WAITING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// The buffer of a memory of this device.
pub fn own(memory: &Memory) -> Result<&Pooled> {
    memory
        .inner
        .downcast_ref::<Pooled>()
        .ok_or_else(|| Error::new(Code::Device, "device", "a tensor of another device; copy it here first"))
}

impl Loaded for WgpuProgram {
    fn run(&mut self, inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        guarded(|| self.submit(inputs))
    }
}

impl WgpuProgram {
    fn submit(&self, inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        let shared = &*self.shared;
        shared.faults.check()?;
        check_pending(shared, false)?;
        self.check_inputs(&inputs)?;
        let mut encoder = shared.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let (inputs, outputs) = self.memories(inputs, &mut encoder)?;
        if !self.checked.is_empty() {
            encoder.clear_buffer(&self.arena.buffer, 0, Some(self.flag_bytes()));
        }
        self.record(&mut encoder, &inputs, &outputs)?;
        let staging = self.record_flags(&mut encoder)?;
        shared.submit(encoder.finish())?;
        if let Some(staging) = staging {
            self.await_flags(staging);
        }
        shared.faults.check()?;
        Ok(outputs)
    }

    fn check_inputs(&self, inputs: &[Memory]) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            let message = format!("{} inputs given, {} needed", inputs.len(), self.inputs.len());
            return Err(Error::internal("run", message));
        }
        for (position, (memory, buffer)) in inputs.iter().zip(&self.inputs).enumerate() {
            own(memory)?;
            if memory.bytes != buffer.size_bytes() {
                let message = format!("input {position} has {} bytes, not {}", memory.bytes, buffer.size_bytes());
                return Err(Error::internal("run", message));
            }
        }
        Ok(())
    }

    /// The memories that kernels see as inputs, and the outputs. An input that is taken over is its output; if someone
    /// else still holds it, a copy takes its place.
    fn memories(
        &self,
        mut inputs: Vec<Memory>,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<(Vec<Memory>, Vec<Memory>)> {
        let mut outputs: Vec<Option<Memory>> = vec![None; self.outputs.len()];
        for (output, input) in self.takeovers() {
            if Arc::strong_count(&inputs[input].inner) > 1 {
                let bytes = inputs[input].bytes;
                let copy = self.shared.pool.take(bytes, STORAGE)?;
                let size = bytes.next_multiple_of(4) as u64;
                if size > 0 {
                    encoder.copy_buffer_to_buffer(&own(&inputs[input])?.buffer, 0, &copy.buffer, 0, size);
                }
                inputs[input] = Memory { inner: Arc::new(copy), bytes };
            }
            outputs[output] = Some(inputs[input].clone());
        }
        let fresh = |(memory, buffer): (Option<Memory>, &raphson_compile::program::Buffer)| match memory {
            Some(memory) => Ok(memory),
            None => {
                let bytes = buffer.size_bytes();
                let pooled = self.shared.pool.take(bytes, STORAGE)?;
                Ok(Memory { inner: Arc::new(pooled), bytes })
            }
        };
        let outputs = outputs.into_iter().zip(&self.outputs).map(fresh).collect::<Result<_>>()?;
        Ok((inputs, outputs))
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, inputs: &[Memory], outputs: &[Memory]) -> Result<()> {
        let device = &self.shared.device;
        let buffer = |outer: Outer| match outer {
            Outer::Input(input) => own(&inputs[input]).map(|pooled| &pooled.buffer),
            Outer::Output(output) => own(&outputs[output]).map(|pooled| &pooled.buffer),
        };
        let arena = &self.arena.buffer;
        let copy = |encoder: &mut wgpu::CommandEncoder, copy: &Copy, to_arena: bool| -> Result<()> {
            let (word, size) = (4 * copy.arena_word as u64, 4 * copy.words as u64);
            if size > 0 && to_arena {
                encoder.copy_buffer_to_buffer(buffer(copy.outer)?, 0, arena, word, size);
            } else if size > 0 {
                encoder.copy_buffer_to_buffer(arena, word, buffer(copy.outer)?, 0, size);
            }
            Ok(())
        };
        let mut next = 0;
        while next < self.launches.len() {
            for staged in &self.launches[next].copies_in {
                copy(encoder, staged, true)?;
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            // One pass goes on until a kernel needs copies.
            let out = loop {
                let launch = &self.launches[next];
                pass.set_pipeline(&launch.pipeline);
                pass.set_bind_group(0, &launch.base, &[]);
                if let Some(layout) = &launch.layout {
                    let entry = |(binding, &(outer, _)): (usize, &(Outer, bool))| -> Result<_> {
                        let resource = buffer(outer)?.as_entire_binding();
                        Ok(wgpu::BindGroupEntry { binding: binding as u32, resource })
                    };
                    let entries = launch.bindings.iter().enumerate().map(entry).collect::<Result<Vec<_>>>()?;
                    let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
                    pass.set_bind_group(1, &device.create_bind_group(&descriptor), &[]);
                }
                pass.dispatch_workgroups(launch.workgroups.0, launch.workgroups.1, 1);
                next += 1;
                let out = &launch.copies_out;
                if !out.is_empty() || self.launches.get(next).is_none_or(|launch| !launch.copies_in.is_empty()) {
                    break out;
                }
            };
            drop(pass);
            for staged in out {
                copy(encoder, staged, false)?;
            }
        }
        Ok(())
    }

    fn flag_bytes(&self) -> u64 {
        (4 * FLAG_WORDS * self.checked.len()) as u64
    }

    /// Copy the flags to where they can be read.
    fn record_flags(&self, encoder: &mut wgpu::CommandEncoder) -> Result<Option<Pooled>> {
        if self.checked.is_empty() {
            return Ok(None);
        }
        let size = self.flag_bytes();
        let staging = self.shared.pool.take(size as usize, READ_BACK)?;
        encoder.copy_buffer_to_buffer(&self.arena.buffer, 0, &staging.buffer, 0, size);
        Ok(Some(staging))
    }

    fn await_flags(&self, staging: Pooled) {
        let state = Arc::new(AtomicU8::new(WAITING));
        let told = state.clone();
        staging.buffer.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            told.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        let pending = Pending { staging, state, checked: self.checked.clone() };
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).push(pending);
    }
}

/// Look at the flags that are back; at all of them if the device has just been waited for.
pub(super) fn check_pending(shared: &Shared, waited: bool) -> Result<()> {
    let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
    if pending.is_empty() {
        return Ok(());
    }
    let poll = if waited { wgpu::PollType::wait_indefinitely() } else { wgpu::PollType::Poll };
    shared
        .device
        .poll(poll)
        .map_err(|error| Error::new(Code::Device, "device", format!("waiting for the device failed: {error}")))?;
    let (done, waiting) =
        std::mem::take(&mut *pending).into_iter().partition(|p| p.state.load(Ordering::Acquire) != WAITING);
    *pending = waiting;
    drop(pending);
    let mut result = Ok(());
    for flags in done {
        // The first error is the one to return; every buffer is unmapped all the same.
        let found = flags.look();
        result = result.and(found);
    }
    result
}

impl Pending {
    fn look(self) -> Result<()> {
        let failed = |what: String| Error::new(Code::Device, "device", format!("reading back failed: {what}"));
        if self.state.load(Ordering::Acquire) == FAILED {
            return Err(failed("flags could not be mapped".to_string()));
        }
        let size = (4 * FLAG_WORDS * self.checked.len()) as u64;
        let flags: Vec<u32> = {
            let view = self.staging.buffer.slice(..size).get_mapped_range().map_err(|e| failed(e.to_string()))?;
            view.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
        };
        self.staging.buffer.unmap();
        match flags.as_chunks::<FLAG_WORDS>().0.iter().zip(self.checked.iter()).find(|([raised, _], _)| *raised != 0) {
            None => Ok(()),
            Some((&[_, index], Checked { op, axis, index_dtype })) => {
                let index = if *index_dtype == DType::U32 { i64::from(index) } else { i64::from(index as i32) };
                let way_out = if *axis == 0 { "the axis is empty".into() } else { format!("use 0 to {}", axis - 1) };
                let message = format!("index {index} is outside an axis of size {axis}; {way_out}");
                Err(Error::new(Code::Index, *op, message))
            }
        }
    }
}
