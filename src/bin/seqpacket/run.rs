//! The runtime of a command, and its end by a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long a signal waits for what was received to be written and passed on.
const GRACE: Duration = Duration::from_secs(1);

/// How many descriptors a runtime opens.
const OF_A_RUNTIME: usize = 6;

/// Returns an error where tokio would panic: its signal driver does if it gets no descriptor.
pub fn descriptors_suffice() -> io::Result<()> {
    let stderr = io::stderr();
    let duplicate = |_| stderr.as_fd().try_clone_to_owned();
    let enough: io::Result<Vec<OwnedFd>> = (0..OF_A_RUNTIME).map(duplicate).collect();
    enough.map(drop).map_err(|error| {
        let what = format!("cannot start, which takes {OF_A_RUNTIME} descriptors (ulimit -n)");
        crate::with(&error, what)
    })
}

pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Asks a command to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

struct Signals(Signal, Signal, Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self(interrupt?, terminate?, hangup?))
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.0.recv() => 2,
            _ = self.1.recv() => 15,
            _ = self.2.recv() => 1,
        }
    }
}

/// Runs until the future completes or a signal comes. The future ends by itself then. In any case everything is dropped,
/// which removes socket files.
pub fn run<F>(work: impl FnOnce(Stop) -> F) -> io::Result<ExitCode>
where
    F: Future<Output = io::Result<()>>,
{
    let runtime = runtime()?;
    let end = runtime.block_on(async {
        // Before anything is made that would have to be removed.
        let mut signals = Signals::new()?;
        let (stop, stopped) = watch::channel(false);
        let mut work = std::pin::pin!(work(Stop(stopped)));
        let signal = tokio::select! {
            done = &mut work => return done.map(|()| ExitCode::SUCCESS),
            signal = signals.next() => signal,
        };
        stop.send_replace(true);
        tokio::select! {
            _ = &mut work => {}
            () = tokio::time::sleep(GRACE) => {}
            _ = signals.next() => {}
        }
        Ok(ExitCode::from(128 + signal))
    });
    // A thread that copies a file may take long.
    runtime.shutdown_background();
    end
}
