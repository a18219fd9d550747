//! Finding the adapters of this machine through wgpu, in silence. What is made of them is the room's matter.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Backends that are compiled in.
const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// The adapters that compute, the preferred first.
pub(super) fn sorted_adapters() -> Vec<wgpu::Adapter> {
    let mut adapters = block_on(instance().enumerate_adapters(BACKENDS));
    adapters
        .retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// For people: `NVIDIA GeForce RTX 4070 (Vulkan)`.
pub(super) fn title(info: &wgpu::AdapterInfo) -> String {
    format!("{} ({:?})", info.name, info.backend)
}

fn descriptor() -> wgpu::InstanceDescriptor {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = BACKENDS;
    descriptor
}

#[cfg(not(target_os = "linux"))]
fn instance() -> wgpu::Instance {
    wgpu::Instance::new(descriptor())
}

/// wgpu asks Vulkan for Wayland surfaces. Mesa's layer that orders devices takes this for a wish to draw and looks for a
/// compositor, and where there is none, libwayland complains on standard error. Nothing is drawn here, so nothing is asked for.
///
/// hal's documentation forbids this: it may assume that every extension that it asks for, and that there is, is enabled.
/// What such an assumption could lead to is a call of a function of the extension, so `hal_has_been_read` names the
/// version in whose sources that was ruled out; of the others nothing is known.
#[cfg(target_os = "linux")]
fn instance() -> wgpu::Instance {
    let descriptor = descriptor();
    let hal = wgpu::hal::InstanceDescriptor {
        name: "raphson",
        flags: descriptor.flags,
        memory_budget_thresholds: descriptor.memory_budget_thresholds,
        backend_options: descriptor.backend_options.clone(),
        telemetry: None,
        display: None,
    };
    // SAFETY: the loader and the drivers it finds are trusted, as by `wgpu::Instance::new`. Against the documentation the
    // callback takes an extension away, and nothing else. In hal 30.0.1 its functions are loaded in one place alone,
    // `create_surface_from_wayland`, which looks for it in this very list first; surfaces are made by nobody here, for the
    // instance never leaves this file.
    let without_wayland = unsafe {
        wgpu::hal::vulkan::Instance::init_with_callback(
            &hal,
            Some(Box::new(|args| args.extensions.retain(|&name| name != c"VK_KHR_wayland_surface"))),
        )
    };
    match without_wayland {
        // SAFETY: it has just been made, and nothing else has it.
        Ok(instance) => unsafe { wgpu::Instance::from_hal::<wgpu::hal::api::Vulkan>(instance) },
        // No Vulkan here. This finds nothing either, and has what asks for adapters in one form.
        Err(_) => wgpu::Instance::new(descriptor),
    }
}

/// Wait for a future. Those of native wgpu are ready at once, so this hardly ever waits.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    /// `instance` leaves out an extension, which is sound only as far as hal's sources have been read.
    #[test]
    fn hal_has_been_read() {
        let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).replace("\r\n", "\n");
        let is_known = lock.contains("name = \"wgpu-hal\"\nversion = \"30.0.1\"\n");
        assert!(
            is_known,
            "another wgpu-hal: see in its src/vulkan that VK_KHR_wayland_surface is used only where it is enabled"
        );
    }
}
