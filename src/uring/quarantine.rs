//! With `--cfg quarantine`, which `.ci/sanitizers` sets: memory of a receive that has been given back is
//! filled with a pattern and kept for a while before another receive gets it, and whether the pattern
//! is still there is checked then. No sanitizer sees the kernel write; this finds a write that came
//! after the completion, as it would if memory were given back before that.

use std::collections::VecDeque;

const PATTERN: u8 = 0xa5;

/// So many receives later memory is given out again.
#[cfg(quarantine)]
const HELD: usize = 64;

pub(super) trait Memory {
    /// What the kernel may have written to, or the first of it.
    fn pieces(&mut self) -> [&mut [u8]; 3];
}

/// Memory was written to after it had been given back: in which piece, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) piece: usize,
    pub(super) at: usize,
}

pub(super) struct Quarantine<M> {
    held: VecDeque<M>,
    most: usize,
}

impl<M: Memory> Quarantine<M> {
    pub(super) const fn new(most: usize) -> Self {
        Self { held: VecDeque::new(), most }
    }

    /// Take memory in; what has been here for long enough comes out.
    pub(super) fn exchange(&mut self, mut memory: M) -> Result<Option<M>, Written> {
        memory.pieces().into_iter().for_each(|piece| piece.fill(PATTERN));
        self.held.push_back(memory);
        if self.held.len() <= self.most {
            return Ok(None);
        }
        let mut oldest = self.held.pop_front();
        for (number, piece) in oldest.iter_mut().flat_map(M::pieces).enumerate() {
            if let Some(at) = piece.iter().position(|byte| *byte != PATTERN) {
                return Err(Written { piece: number, at });
            }
        }
        Ok(oldest)
    }
}

#[cfg(quarantine)]
static QUARANTINE: std::sync::Mutex<Quarantine<(Box<super::payload::ReceivePayload>, usize)>> =
    std::sync::Mutex::new(Quarantine::new(HELD));

/// A payload, and how much of its slot has been used.
#[cfg(quarantine)]
pub(super) fn exchange(
    memory: (Box<super::payload::ReceivePayload>, usize),
) -> Option<(Box<super::payload::ReceivePayload>, usize)> {
    let exchanged =
        QUARANTINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).exchange(memory);
    match exchanged {
        Ok(oldest) => oldest,
        Err(written) => {
            // A panic would end in a task of a test, and be overlooked.
            eprintln!("quarantine: memory was written to after it was given back: {written:?}");
            std::process::abort();
        }
    }
}
