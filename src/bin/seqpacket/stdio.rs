//! stdin, stdout and stderr on threads of their own. So neither an idle terminal nor a pipe that is not read keeps the tool
//! from handling signals.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::fds::Attachments;
use crate::format::Format;

/// How many messages are read ahead, and how many wait to be written.
const AHEAD: usize = 16;

/// A message of stdin, with the descriptors that go with it.
pub struct Outgoing {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

pub type Input = mpsc::Receiver<io::Result<Arc<Outgoing>>>;

/// Returns the messages of stdin. Its thread is not joined.
pub fn input(format: Format, mut attachments: Attachments) -> Input {
    let (give, take) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut line = 0;
        let read = || -> io::Result<()> {
            // Not `Stdin`, which reads ahead.
            let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            let mut stdin = BufReader::with_capacity(format.read_ahead(), stdin);
            while let Some(bytes) = format.next(&mut stdin, &mut line)? {
                let fds = attachments.next();
                if give.blocking_send(Ok(Arc::new(Outgoing { bytes, fds }))).is_err() {
                    return Ok(());
                }
            }
            attachments.all_sent()
        };
        if let Err(error) = { read }() {
            let _ = give.blocking_send(Err(error));
        }
    });
    take
}

/// Takes what is written to stdout or stderr. Clones write to the same.
#[derive(Clone)]
pub struct Writer {
    give: mpsc::UnboundedSender<Vec<u8>>,
    queue: Arc<Queue>,
}

/// What is not written yet.
#[derive(Default)]
struct Queue {
    len: AtomicUsize,
    shorter: Notify,
}

/// Ends once each [`Writer`] is dropped and everything is written.
pub struct Written(oneshot::Receiver<io::Result<()>>);

/// Starts the thread that writes.
pub fn output(mut out: impl Write + Send + 'static) -> (Writer, Written) {
    let (give, mut take) = mpsc::unbounded_channel::<Vec<u8>>();
    let (report, written) = oneshot::channel();
    let queue = Arc::<Queue>::default();
    let writer = Writer { give, queue: queue.clone() };
    std::thread::spawn(move || {
        let mut write = || -> io::Result<()> {
            while let Some(mut bytes) = take.blocking_recv() {
                // What has come meanwhile, and then all of it at once.
                loop {
                    out.write_all(&bytes)?;
                    queue.len.fetch_sub(1, Ordering::Relaxed);
                    queue.shorter.notify_waiters();
                    let Ok(more) = take.try_recv() else { break };
                    bytes = more;
                }
                out.flush()?;
            }
            Ok(())
        };
        let _ = report.send(write());
    });
    (writer, Written(written))
}

impl Writer {
    /// Writes it, without waiting: what was received is not lost. A caller that writes much waits for
    /// [`ready`](Self::ready) first.
    pub fn write(&self, bytes: Vec<u8>) {
        self.queue.len.fetch_add(1, Ordering::Relaxed);
        // If it is not read any more, `ready` says so.
        let _ = self.give.send(bytes);
    }

    /// Waits while much is not written yet. Returns `false` if it is not read any more.
    pub async fn ready(&self) -> bool {
        let mut shorter = std::pin::pin!(self.queue.shorter.notified());
        loop {
            shorter.as_mut().enable();
            if self.give.is_closed() {
                return false;
            }
            if self.queue.len.load(Ordering::Relaxed) < AHEAD {
                return true;
            }
            tokio::select! {
                () = shorter.as_mut() => {}
                () = self.give.closed() => {}
            }
            shorter.set(self.queue.shorter.notified());
        }
    }

    /// Waits until it is not read any more, which a write finds out.
    pub async fn closed(&self) {
        self.give.closed().await;
    }
}

impl Written {
    /// Waits until everything is written. A reader that has gone is no failure.
    pub async fn finish(self) -> io::Result<()> {
        match self.0.await.expect("the thread does not panic") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}
