//! Preparing a program: placing its buffers, printing its kernels, making (or finding) their pipelines.

use super::Shared;
use super::argsort::{merge_text, runs_text};
use super::attention::{What, attention_text};
use super::bounds::check_bounds;
use super::conv::{conv_text, is_tiled};
use super::dot::dot_text;
use super::gather::{gather_text, pack_text, scatter_text};
use super::lower::{Lowered, Work, lowered};
use super::memory::{Pooled, STORAGE};
use super::place::{Layout, Outer};
use super::row::row_text;
use super::slots::{Copy, FLAG_WORDS, Slots};
use super::text::Text;
use raphson_compile::direct::without_convolutions;
use raphson_compile::program::{Buffer, Kernel, Place, Program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError};

/// One dispatch.
pub struct Launch {
    pub pipeline: Arc<wgpu::ComputePipeline>,
    /// Group 0: the offsets and the arena.
    pub base: wgpu::BindGroup,
    /// Group 1.
    pub bindings: Vec<(Outer, bool)>,
    pub layout: Option<wgpu::BindGroupLayout>,
    pub workgroups: (u32, u32),
    pub copies_in: Vec<Copy>,
    pub copies_out: Vec<Copy>,
}

/// A kernel that checks indices.
#[derive(Clone, Debug)]
pub struct Checked {
    pub op: &'static str,
    pub axis: usize,
    pub index_dtype: DType,
}

/// A prepared program.
pub struct WgpuProgram {
    pub(super) shared: Arc<Shared>,
    pub launches: Vec<Launch>,
    pub arena: Pooled,
    /// Buffers of the inputs and of the outputs.
    pub inputs: Vec<Buffer>,
    pub outputs: Vec<Buffer>,
    /// Kernels that check indices; their flags are the first words of the arena.
    pub checked: Arc<Vec<Checked>>,
}

/// A kernel printed, before it has a pipeline.
struct Printed {
    text: Text,
    slots: Slots,
}

impl Printed {
    /// Offsets and numbers.
    fn n_uniforms(&self) -> usize {
        self.slots.arena.len() + self.text.numbers.len()
    }
}

/// Prepare a program.
pub(super) fn load(shared: &Arc<Shared>, program: &Program) -> Result<WgpuProgram> {
    shared.faults.check()?;
    refuse_wide(program)?;
    let program = without_convolutions(program, is_tiled);
    check_bounds(&program)?;
    let (inputs, outputs) = ends(&program);
    let lowered = lowered(&program);
    let checked: Vec<Checked> = lowered.works.iter().filter_map(checks).collect();
    let layout = Layout::new(&lowered, FLAG_WORDS * checked.len());
    let printed = print(shared, &lowered, &layout)?;
    let staging = printed.iter().map(|printed| printed.slots.staging_words).max().unwrap_or(0);
    let arena = arena(shared, layout.arena_words + staging)?;
    let (offsets, stride) = offsets(shared, &printed);
    let launches = printed
        .into_iter()
        .enumerate()
        .map(|(position, printed)| launch(shared, printed, &arena, &offsets, position as u64 * stride))
        .collect::<Result<_>>()?;
    shared.faults.check()?;
    Ok(WgpuProgram { shared: shared.clone(), launches, arena, inputs, outputs, checked: Arc::new(checked) })
}

/// WGSL has no 64-bit numbers. They are refused in registers too, so that nothing is computed in 32 bits in secret.
fn refuse_wide(program: &Program) -> Result<()> {
    let steps = program.kernels.iter().flat_map(|kernel| match kernel {
        Kernel::Row(row) => &row.steps[..],
        Kernel::Dot(_)
        | Kernel::Conv(_)
        | Kernel::Gather(_)
        | Kernel::ScatterAdd(_)
        | Kernel::Argsort(_)
        | Kernel::Attention(_)
        | Kernel::Fill { .. } => &[],
    });
    let mut dtypes = program.buffers.iter().map(|buffer| buffer.dtype).chain(steps.map(|step| step.dtype));
    let Some(dtype) = dtypes.find(|dtype| matches!(dtype, DType::F64 | DType::I64)) else { return Ok(()) };
    let narrow = if dtype == DType::F64 { "f32" } else { "i32" };
    let message = format!("{dtype} is not available on wgpu; cast to {narrow}, or use device: \"cpu\"");
    Err(Error::new(Code::Device, "device", message).with_dtypes([dtype]))
}

/// Buffers of the inputs and outputs by position.
fn ends(program: &Program) -> (Vec<Buffer>, Vec<Buffer>) {
    let buffers = |ids: &[raphson_compile::program::BufferId]| {
        ids.iter().map(|id| program.buffers[id.0 as usize].clone()).collect::<Vec<_>>()
    };
    (buffers(&program.inputs), buffers(&program.outputs))
}

fn checks(work: &Work) -> Option<Checked> {
    let Work::Kernel(kernel) = work else { return None };
    match kernel {
        Kernel::Gather(gather) => Some(Checked { op: "gather", axis: gather.axis, index_dtype: gather.index_dtype }),
        Kernel::ScatterAdd(scatter) => {
            Some(Checked { op: "scatterAdd", axis: scatter.axis, index_dtype: scatter.index_dtype })
        }
        Kernel::Row(_)
        | Kernel::Dot(_)
        | Kernel::Conv(_)
        | Kernel::Argsort(_)
        | Kernel::Attention(_)
        | Kernel::Fill { .. } => None,
    }
}

/// All kernels, then the packing of narrow results, as texts.
fn print(shared: &Shared, lowered: &Lowered, layout: &Layout) -> Result<Vec<Printed>> {
    let abilities = &shared.abilities;
    // One storage buffer is the arena.
    let limit = shared.limits.max_storage_buffers_per_shader_stage.saturating_sub(1).max(1) as usize;
    let mut printed = Vec::with_capacity(lowered.works.len() + layout.packs.len());
    let mut flag = 0;
    for work in &lowered.works {
        let mut slots = Slots::new(&lowered.program, layout, work, limit);
        if checks(work).is_some() {
            slots = slots.with_flag(flag);
            flag += FLAG_WORDS;
        }
        let text = match work {
            Work::Kernel(Kernel::Row(row)) => row_text(row, &slots, abilities),
            Work::Kernel(Kernel::Dot(dot)) => dot_text(dot, &slots, abilities),
            Work::Kernel(Kernel::Conv(conv)) => conv_text(conv, &slots, abilities),
            Work::Kernel(Kernel::Gather(gather)) => gather_text(gather, &slots, abilities),
            Work::Kernel(Kernel::ScatterAdd(scatter)) => scatter_text(scatter, &slots, abilities),
            Work::Kernel(Kernel::Argsort(sort)) => runs_text(sort, &slots, abilities),
            Work::Kernel(Kernel::Attention(attention)) => {
                let what = if attention.reverse.is_some() { What::Queries } else { What::Forward };
                attention_text(attention, what, &slots, abilities)
            }
            Work::OfKeys(attention) => attention_text(attention, What::Keys, &slots, abilities),
            Work::Kernel(Kernel::Fill { .. }) => Err(Error::internal("wgpu", "a fill that was not lowered")),
            Work::Merge { sort, from, run } => merge_text(sort, *from, *run, &slots, abilities),
        };
        printed.push(Printed { text: text?, slots });
    }
    for pack in layout.packs.iter().filter(|pack| pack.elements > 0) {
        let slots = Slots::for_pack(pack);
        printed.push(Printed { text: pack_text(pack, &slots, abilities)?, slots });
    }
    Ok(printed)
}

/// The arena's memory.
fn arena(shared: &Shared, words: usize) -> Result<Pooled> {
    let bytes = words.saturating_mul(4);
    let limit = shared.most_bytes;
    if bytes as u64 > limit {
        let message = format!(
            "this program needs {bytes} bytes of temporaries; this adapter binds at most {limit} bytes. Use smaller \
             batches or device: \"cpu\""
        );
        return Err(Error::new(Code::Device, "device", message));
    }
    shared.pool.take(bytes.max(16), STORAGE)
}

/// The uniform buffer with all kernels' offsets, and the distance between those of two kernels.
fn offsets(shared: &Shared, printed: &[Printed]) -> (wgpu::Buffer, u64) {
    let most = printed.iter().map(Printed::n_uniforms).max().unwrap_or(0);
    let alignment = shared.limits.min_uniform_buffer_offset_alignment as usize;
    let stride = (most.max(1) * 4).next_multiple_of(16).next_multiple_of(alignment.max(16));
    let mut bytes = vec![0; stride * printed.len().max(1)];
    for (position, printed) in printed.iter().enumerate() {
        let offsets = printed.slots.arena.iter().map(|&(word, _)| word as i32);
        for (i, value) in offsets.chain(printed.text.numbers.iter().copied()).enumerate() {
            let at = position * stride + 4 * i;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    let buffer = shared.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("offsets"),
        size: bytes.len() as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    shared.queue.write_buffer(&buffer, 0, &bytes);
    (buffer, stride as u64)
}

fn launch(shared: &Shared, printed: Printed, arena: &Pooled, offsets: &wgpu::Buffer, start: u64) -> Result<Launch> {
    let size = NonZeroU64::new(16 * printed.n_uniforms().div_ceil(4).max(1) as u64);
    let Printed { text, slots } = printed;
    let written: Vec<bool> = slots.bindings.iter().map(|&(_, written)| written).collect();
    let layout = (!written.is_empty()).then(|| binding_layout(shared, written));
    let pipeline = pipeline(shared, &text.wgsl, layout.as_ref())?;
    let base = shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &shared.base_layout,
        entries: &[
            wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: offsets, offset: start, size }),
            },
            wgpu::BindGroupEntry { binding: 1, resource: arena.buffer.as_entire_binding() },
        ],
    });
    Ok(Launch {
        pipeline,
        base,
        bindings: slots.bindings,
        layout,
        workgroups: text.workgroups,
        copies_in: slots.copies_in,
        copies_out: slots.copies_out,
    })
}

fn entry(binding: usize, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// The layout of group 0.
pub fn base_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &[
            entry(0, wgpu::BufferBindingType::Uniform),
            entry(1, wgpu::BufferBindingType::Storage { read_only: false }),
        ],
    })
}

/// The layout of group 1, given which of its buffers are written.
fn binding_layout(shared: &Shared, written: Vec<bool>) -> wgpu::BindGroupLayout {
    // A layout that another thread has made in the meantime is as good.
    let mut layouts = shared.layouts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(layout) = layouts.get(&written) {
        return layout.clone();
    }
    let storage = |(i, &written): (usize, &bool)| entry(i, wgpu::BufferBindingType::Storage { read_only: !written });
    let entries: Vec<_> = written.iter().enumerate().map(storage).collect();
    let descriptor = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
    let layout = shared.device.create_bind_group_layout(&descriptor);
    layouts.insert(written, layout.clone());
    layout
}

/// The pipeline of a text, from the cache if it is known.
fn pipeline(shared: &Shared, wgsl: &str, layout: Option<&wgpu::BindGroupLayout>) -> Result<Arc<wgpu::ComputePipeline>> {
    let known = shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner).get(wgsl).cloned();
    if let Some(pipeline) = known {
        return Ok(pipeline);
    }
    let scope = shared.device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    let checks =
        if shared.checked { wgpu::ShaderRuntimeChecks::checked() } else { wgpu::ShaderRuntimeChecks::unchecked() };
    // SAFETY: the text was printed from a program whose views stay inside its buffers (`check_bounds`); indices that come
    // from data are compared with their axis before use, loops have bounds, and divisors are tested.
    let module = unsafe { shared.device.create_shader_module_trusted(descriptor, checks) };
    let groups: Vec<Option<&wgpu::BindGroupLayout>> =
        std::iter::once(Some(&shared.base_layout)).chain(layout.map(Some)).collect();
    let pipeline_layout = shared.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &groups,
        immediate_size: 0,
    });
    let pipeline = shared.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        // Every kernel writes its shared memory before it reads it.
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..wgpu::PipelineCompilationOptions::default()
        },
        cache: None,
    });
    if let Some(error) = super::block_on(scope.pop()) {
        return Err(Error::internal("wgpu", format!("a kernel was refused: {error}\n{wgsl}")));
    }
    shared.faults.check()?;
    let pipeline = Arc::new(pipeline);
    let mut pipelines = shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
    pipelines.insert(wgsl.to_string(), pipeline.clone());
    Ok(pipeline)
}

impl WgpuProgram {
    /// Pairs (output, the input whose memory it takes over).
    pub fn takeovers(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.outputs.iter().enumerate().filter_map(|(output, buffer)| match buffer.place {
            Place::InPlace { input, .. } => Some((output, input)),
            Place::Input(_) | Place::Output(_) | Place::Arena(_) => None,
        })
    }
}
