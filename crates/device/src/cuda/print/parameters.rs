//! A kernel's parameters: pointers to buffers in the order of their first use, and the error words if it may fail.

use super::Parameter;
use super::text::{Register, Text};
use raphson_compile::program::{Buffer, BufferId, Place};

/// The parameters of a kernel in the course of printing.
#[derive(Default)]
pub struct Parameters {
    known: Vec<(Parameter, Register)>,
}

impl Parameters {
    /// The address of a buffer. The first time it is loaded here, so that must be where all later uses come after.
    pub fn pointer(&mut self, text: &mut Text, id: BufferId) -> Register {
        self.get(text, Parameter::Buffer(id))
    }

    /// The address of the error words.
    pub fn error_words(&mut self, text: &mut Text) -> Register {
        self.get(text, Parameter::ErrorWords)
    }

    /// Any parameter, as `pointer` has a buffer.
    pub fn get(&mut self, text: &mut Text, parameter: Parameter) -> Register {
        if let Some((_, register)) = self.known.iter().find(|(known, _)| *known == parameter) {
            return *register;
        }
        let generic = text.long("ld.param.u64", &[&format!("[a{}]", self.known.len())]);
        let register = text.long("cvta.to.global.u64", &[&generic]);
        self.known.push((parameter, register));
        register
    }

    /// The list, in order.
    pub fn finish(self) -> Vec<Parameter> {
        self.known.into_iter().map(|(parameter, _)| parameter).collect()
    }
}

/// What tells apart the pieces of memory behind buffers: an output may lie in the memory of an input.
pub fn memory(buffers: &[Buffer], id: BufferId) -> (u8, usize) {
    match buffers[id.0 as usize].place {
        Place::Input(input) | Place::InPlace { input, .. } => (0, input),
        Place::Output(output) => (1, output),
        // Temporaries that one kernel uses never overlap.
        Place::Arena(_) => (2, id.0 as usize),
    }
}
