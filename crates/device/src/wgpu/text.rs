//! What all kernel texts share: the frame of an entry point, the spread of its workgroups over two dimensions, and the
//! limits that a text has to respect.

use super::math::functions_for;
use super::slots::Slots;
use raphson_graph::error::{Code, Error, Result};

/// What texts may use of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub subgroups: bool,
    /// Invocations in a workgroup.
    pub workgroup: usize,
    /// Workgroups along one dimension.
    pub workgroups: usize,
    /// Bytes of a workgroup's memory.
    pub shared_bytes: usize,
}

/// A kernel as text, and how often it is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub wgsl: String,
    /// Workgroups along x and y.
    pub workgroups: (u32, u32),
    /// What stands behind the offsets in the uniform buffer.
    pub numbers: Vec<i32>,
}

/// A body to be framed.
#[derive(Debug, Default)]
pub struct Frame {
    /// Workgroup variables.
    pub shared: String,
    /// Statements. `group` is the workgroup's number, `lane` the invocation's number in it.
    pub body: String,
    pub workgroup: usize,
    pub n_workgroups: usize,
    pub subgroups: bool,
    /// Sizes that the body knows as `n0`, `n1`, … instead of as constants, so that kernels that differ only by them
    /// share a text.
    pub numbers: Vec<i32>,
}

impl Frame {
    /// The name of a new number.
    pub fn number(&mut self, value: i32) -> String {
        self.numbers.push(value);
        format!("n{}", self.numbers.len() - 1)
    }

    /// The whole text.
    pub fn text(self, slots: &Slots, abilities: &Abilities) -> Result<Text> {
        let (x, y) = spread(self.n_workgroups, abilities.workgroups)?;
        let group = if y == 1 { "i32(wid.x)".to_string() } else { format!("i32(wid.x) + i32(wid.y) * {x}") };
        let mut arguments =
            "@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) index: u32".to_string();
        if self.subgroups {
            arguments.push_str(
                ", @builtin(subgroup_invocation_id) subgroup_lane: u32, @builtin(subgroup_id) subgroup: u32, \
                 @builtin(num_subgroups) n_subgroups: u32",
            );
        }
        // The last row of workgroups may be longer than needed.
        let guard = if x as usize * y as usize > self.n_workgroups {
            format!("    if (group >= {}) {{ return; }}\n", self.n_workgroups)
        } else {
            String::new()
        };
        let wgsl = format!(
            "{declarations}{shared}{functions}@compute @workgroup_size({workgroup})\nfn main({arguments}) {{\n\
             {variables}    let group = {group};\n    let lane = i32(index);\n{guard}{body}}}\n",
            declarations = slots.declarations(self.numbers.len()),
            shared = self.shared,
            functions = functions_for(&self.body),
            workgroup = self.workgroup,
            variables = slots.uniform_variables(self.numbers.len()),
            body = self.body,
        );
        Ok(Text { wgsl, workgroups: (x, y), numbers: self.numbers })
    }
}

/// `n` workgroups over two dimensions of at most `limit` each.
fn spread(n: usize, limit: usize) -> Result<(u32, u32)> {
    let y = n.div_ceil(limit).max(1);
    let x = n.div_ceil(y).max(1);
    if y > limit || n > i32::MAX as usize {
        let message = format!("a kernel of {n} workgroups, more than this adapter runs; use smaller tensors");
        return Err(Error::new(Code::Device, "device", message));
    }
    Ok((x as u32, y as u32))
}

/// An index space must be countable in 32 bits.
pub fn countable(what: &str, elements: usize) -> Result<i32> {
    i32::try_from(elements).ok().filter(|&n| n < i32::MAX / 2).ok_or_else(|| {
        let message = format!("{what} of {elements} elements, more than 2^30; use smaller tensors or device: \"cpu\"");
        Error::new(Code::Device, "device", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_workgroups_take_two_dimensions() {
        assert_eq!(spread(0, 65_535), Ok((1, 1)));
        assert_eq!(spread(65_535, 65_535), Ok((65_535, 1)));
        assert_eq!(spread(65_536, 65_535), Ok((32_768, 2)));
        assert_eq!(spread(200_001, 65_535), Ok((50_001, 4)));
        assert!(spread(usize::MAX / 2, 65_535).is_err());
    }
}
