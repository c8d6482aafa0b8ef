//! Which backend new sockets run on: what the program and the environment ask for, and what the kernel allows.

use std::io;
use std::sync::OnceLock;

use crate::types::backend::{Backend, Selection, Submission};
use crate::uring::probe::{is_available, probe};
use crate::uring::support::UringSupport;

/// The operator's switches. Each is read once.
const VARIABLE: &str = "TOKIO_SEQPACKET_BACKEND";
const SUBMISSION_VARIABLE: &str = "TOKIO_SEQPACKET_SUBMISSION";

fn from_environment<T: Copy>(
    variable: &str,
    known: &OnceLock<Result<T, String>>,
    values: &[(&str, T)],
) -> io::Result<T> {
    let parsed = known.get_or_init(|| {
        let Some(value) = std::env::var_os(variable) else { return Ok(values[0].1) };
        let meant = values.iter().find(|(name, _)| value == *name);
        let default = value.is_empty().then_some(&values[0]);
        meant.or(default).map(|(_, meant)| *meant).ok_or_else(|| {
            let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            format!("{variable}={} is not one of {}", value.display(), names.join(", "))
        })
    });
    match parsed {
        Ok(value) => Ok(*value),
        Err(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, what.clone())),
    }
}

fn selection_from_environment() -> io::Result<Selection> {
    static VALUE: OnceLock<Result<Selection, String>> = OnceLock::new();
    let values =
        [("auto", Selection::Auto), ("uring", Selection::Uring), ("epoll", Selection::Epoll)];
    from_environment(VARIABLE, &VALUE, &values)
}

fn submission_from_environment() -> io::Result<Submission> {
    static VALUE: OnceLock<Result<Submission, String>> = OnceLock::new();
    let values = [
        ("adaptive", Submission::Adaptive),
        ("ring", Submission::Ring),
        ("direct", Submission::Direct),
    ];
    from_environment(SUBMISSION_VARIABLE, &VALUE, &values)
}

/// The backend that was chosen, and how it was chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(super) backend: Backend,
    /// io_uring was not asked for explicitly. Where it is not available, epoll is used.
    pub(super) may_fall_back: bool,
    pub(super) submission: Submission,
}

impl Choice {
    /// Returns the choice for sockets that a listener accepts.
    pub(crate) fn as_listener(self) -> Self {
        Self { may_fall_back: true, ..self }
    }
}

/// Chooses a backend. An explicit choice that cannot be met is an error, and never a silent fallback.
pub(crate) fn select(selection: Selection, submission: Option<Submission>) -> io::Result<Choice> {
    let submission = submission.map_or_else(submission_from_environment, Ok)?;
    let (selection, asked_by) = match selection {
        Selection::Auto => (selection_from_environment()?, VARIABLE),
        explicit => (explicit, "the program"),
    };
    let epoll = Choice { backend: Backend::Epoll, may_fall_back: false, submission };
    let uring = |may_fall_back| Choice { backend: Backend::Uring, may_fall_back, submission };
    match selection {
        // No call of io_uring is made here, not even a probe: a filter may kill the process for that.
        Selection::Epoll => Ok(epoll),
        Selection::Auto => Ok(if is_available() { uring(true) } else { epoll }),
        // The kernel is asked again: an explicit choice is refused with the current reason.
        Selection::Uring => match probe() {
            UringSupport::Available { .. } => Ok(uring(false)),
            support => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{asked_by} asks for io_uring: {support}"),
            )),
        },
    }
}
