//! Rows as programs for tokio, written once for all libraries.

mod echo;
mod flow;
mod large;
mod latency;
mod volleys;

pub use latency::PAUSE;

use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::contestants::{Contestant, REFERENCE, Rig};
use crate::libraries::{Library, Socket};
use crate::work::{SMALL, Setting, Work};

pub struct OnTokio<L> {
    name: &'static str,
    short: &'static str,
    library: L,
    round_trips: bool,
}

impl<L> OnTokio<L> {
    pub fn new(name: &'static str, short: &'static str, library: L) -> Self {
        Self { name, short, library, round_trips: false }
    }

    /// Takes part in rows of round trips only.
    pub fn round_trips(self) -> Self {
        Self { round_trips: true, ..self }
    }
}

impl<L: Library> Contestant for OnTokio<L> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn short(&self) -> &'static str {
        self.short
    }

    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String> {
        // The reference does the same work plainly, for the ratio.
        let reference = self.name == REFERENCE;
        let plain = work == work.plain() && setting != Setting::TwoBusy;
        let work = if reference { work.plain() } else { work };
        let lacking = match work {
            _ if !plain && !reference && L::NO_EXTRAS.is_some() => L::NO_EXTRAS,
            Work::Echo { .. } | Work::Changing { .. } if self.round_trips => None,
            _ if self.round_trips => Some(ROUND_TRIPS),
            Work::Echo { descriptor: true, .. } => L::NO_DESCRIPTORS,
            Work::Flood { .. } => L::NO_SHARING,
            Work::Connect => L::NO_LISTENER,
            _ => None,
        };
        if let Some(reason) = lacking {
            return Err(reason.into());
        }
        let runtimes = Runtimes::new(setting).map_err(|error| error.to_string())?;
        let library = self.library.clone();
        let made: io::Result<Box<dyn Rig>> = match work {
            Work::Echo { pairs, size, descriptor } => {
                echo::Echo::new(library, runtimes, pairs, size, descriptor).map(boxed)
            }
            Work::Changing { pairs } => echo::Changing::new(library, runtimes, pairs).map(boxed),
            Work::Calls { pairs } => {
                echo::Echo::new(library, runtimes, pairs, SMALL, false).map(boxed)
            }
            Work::Volleys { pairs, at_once, way } => {
                volleys::Volleys::new(library, runtimes, pairs, at_once, way).map(boxed)
            }
            Work::Large { payload } => large::Large::new(library, runtimes, payload).map(boxed),
            Work::OneWay { way } => flow::OneWay::new(library, runtimes, way).map(boxed),
            Work::Flood { tasks } => flow::Flood::new(library, runtimes, tasks).map(boxed),
            Work::Connect => flow::Connect::new(library, runtimes).map(boxed),
            Work::Paced => latency::Paced::new(library, runtimes).map(boxed),
            Work::Beside { tasks } => latency::Beside::new(library, runtimes, tasks).map(boxed),
            Work::Memory | Work::Pipe { .. } => return Err("not in rounds".into()),
        };
        made.map_err(|error| error.to_string())
    }

    fn idle(&self, count: usize, sample: &mut dyn FnMut()) -> Result<(), String> {
        if self.round_trips {
            return Err(ROUND_TRIPS.into());
        }
        idle(&self.library, count, sample).map_err(|error| error.to_string())
    }
}

const ROUND_TRIPS: &str = "a way of submitting, compared in round trips only";

fn boxed(rig: impl Rig + 'static) -> Box<dyn Rig> {
    Box::new(rig)
}

/// How long a receive polls busily, in rows where it does: longer than any answer takes.
const BUSY: Duration = Duration::from_micros(200);

/// The runtimes of one rig. Sockets and tasks go with them.
pub struct Runtimes {
    setting: Setting,
    far: Option<Far>,
    near: Runtime,
}

impl Runtimes {
    fn new(setting: Setting) -> io::Result<Self> {
        let near = match setting {
            Setting::CurrentThread | Setting::TwoRuntimes | Setting::TwoBusy => {
                Builder::new_current_thread().enable_all().build()
            }
            Setting::MultiThread | Setting::BlockOn => {
                Builder::new_multi_thread().worker_threads(2).enable_all().build()
            }
        }?;
        let two = matches!(setting, Setting::TwoRuntimes | Setting::TwoBusy);
        let far = two.then(Far::new).transpose()?;
        let runtimes = Self { setting, far, near };
        if setting == Setting::TwoBusy {
            for handle in [runtimes.near.handle(), runtimes.servers()] {
                let _entered = handle.enter();
                tokio_seqpacket::busy_poll(BUSY)?;
            }
        }
        Ok(runtimes)
    }

    /// Where servers live.
    fn servers(&self) -> &Handle {
        self.far.as_ref().map_or(self.near.handle(), |far| &far.handle)
    }

    /// A server's socket and a client's.
    fn pair<L: Library>(&self, library: &L) -> io::Result<(L::Socket, L::Socket)> {
        let (server, client) = library.ends()?;
        let server = {
            let _entered = self.servers().enter();
            library.adopt(server)?
        };
        let _entered = self.near.enter();
        Ok((server, library.adopt(client)?))
    }

    /// Run a round, unless it hangs.
    fn run<T>(&self, round: impl Future<Output = io::Result<T>>) -> Result<T, String> {
        const PATIENCE: Duration = Duration::from_secs(60);
        match self.near.block_on(async { tokio::time::timeout(PATIENCE, round).await }) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("hung: no end after {PATIENCE:?}")),
        }
    }
}

/// A current_thread runtime that its own thread drives until it is dropped.
struct Far {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Far {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // An error says that the other side was dropped, which means the same.
            let _ = runtime.block_on(stopped);
        });
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Await tasks that give something back.
async fn all<T>(tasks: Vec<tokio::task::JoinHandle<io::Result<T>>>) -> io::Result<Vec<T>> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.map_err(io::Error::other)??);
    }
    Ok(results)
}

fn idle<L: Library>(library: &L, count: usize, sample: &mut dyn FnMut()) -> io::Result<()> {
    let runtimes = Runtimes::new(Setting::CurrentThread)?;
    // What the first socket sets up is not the price of a connection.
    let mut first = runtimes.pair(library)?;
    runtimes.near.block_on(async {
        first.0.send(&mut vec![7; SMALL]).await?;
        first.1.recv(&mut vec![0; SMALL]).await
    })?;
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count.div_ceil(2) {
        let (a, b) = library.ends()?;
        ends.extend([a, b]);
    }
    sample();
    runtimes.near.block_on(async {
        for end in ends {
            let mut socket = library.adopt(end)?;
            tokio::spawn(async move { socket.recv(&mut vec![0; SMALL]).await });
            // It comes to its receive before the next connection is made, as in a server.
            tokio::task::yield_now().await;
        }
        // For receives that retry before they wait, and for driver tasks.
        for _ in 0..count.div_ceil(16) {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        sample();
        Ok(())
    })
}
