//! Messages that go one way between two processes.
//!
//! All ways of a size are measured together, in alternating rounds, so that noise meets all of them. The receiver is a child of
//! this program, and starts the sender with one end of a socket pair as its standard input.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio_seqpacket::{Backend, Framed, Options, UnixSeqpacket};
use tokio_util::codec::BytesCodec;

use crate::children::{output, this_program};
use crate::contestants::{Contestant, EPOLL, REFERENCE, URING};
use crate::libraries::upstream::Current;
use crate::libraries::{Library, Socket, truncated, whole};
use crate::measure::Plan;
use crate::progress::Progress;
use crate::report::Cell;
use crate::stats::Spread;
use crate::work::Pipe;

/// The ways of the rows between two processes, plain calls first.
pub const WAYS: [(Pipe, &str, &str); 4] = [
    (Pipe::Plain, "plain", "plain calls"),
    (Pipe::Batches, "batch", "batches"),
    (Pipe::Bytes, "bytes", "owned calls with Bytes"),
    (Pipe::Framed, "framed", "Framed"),
];

/// Messages in one batch.
const AT_ONCE: usize = 32;

/// What a child measured, in nanoseconds of a message.
#[derive(Serialize, Deserialize)]
struct Taken {
    value: f64,
    /// Processor time of the receiver.
    receiver: f64,
    sender: f64,
}

impl Taken {
    /// What a message takes at least where each process has a core of its own.
    fn longer_side(&self) -> f64 {
        self.receiver.max(self.sender)
    }
}

/// What was measured with messages of one size.
#[derive(Default)]
struct Measured {
    rounds: HashMap<(&'static str, Pipe), Vec<Taken>>,
    /// Contestants that failed, and why.
    failures: Vec<(&'static str, String)>,
}

/// The rows so far, by size.
#[derive(Default)]
pub struct Pipes(HashMap<usize, Measured>);

impl Pipes {
    /// Returns the cells of one row. Measures all ways of its size, if that has not been done yet.
    pub fn row(
        &mut self,
        contestants: &[Box<dyn Contestant>],
        way: Pipe,
        size: usize,
        plan: &Plan,
        progress: &Progress,
        notes: &mut Vec<String>,
    ) -> Vec<Cell> {
        let measured = self.0.entry(size).or_insert_with(|| {
            let measured = measure(contestants, size, plan, progress);
            notes.extend(measured.summary(size));
            measured
        });
        contestants.iter().map(|contestant| measured.cell(contestant.name(), way)).collect()
    }
}

impl Measured {
    fn cell(&self, name: &'static str, way: Pipe) -> Cell {
        // The reference does the same work plainly.
        let way = if name == REFERENCE { Pipe::Plain } else { way };
        let Some(mine) = self.rounds.get(&(name, way)) else {
            let failure = self.failures.iter().find(|(failed, _)| *failed == name);
            let reason = failure.map_or(NOT_OF_INTEREST, |(_, reason)| reason);
            return Cell { reason: Some(reason.into()), ..Cell::default() };
        };
        let reference = self.rounds.get(&(REFERENCE, Pipe::Plain)).map_or(&[][..], Vec::as_slice);
        Cell {
            value: Spread::of(mine.iter().map(|taken| taken.value).collect()),
            ratio: ratio(reference, mine, |taken| taken.value),
            cpu: Spread::of(mine.iter().map(Taken::longer_side).collect()),
            cpu_ratio: ratio(reference, mine, Taken::longer_side),
            ..Cell::default()
        }
    }

    /// Messages a second, and time and processor time of a message as ratios to plain calls of the same backend: above 1 is
    /// more.
    fn summary(&self, size: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for name in [URING, EPOLL] {
            let Some(plain) = self.rounds.get(&(name, Pipe::Plain)) else { continue };
            for (way, _, what) in WAYS {
                let Some(mine) = self.rounds.get(&(name, way)) else { continue };
                let value = Spread::of(mine.iter().map(|taken| taken.value).collect());
                let times = ratio(mine, plain, |taken| taken.value);
                let cpu = ratio(mine, plain, Taken::longer_side);
                if let (Some(value), Some(times), Some(cpu)) = (value, times, cpu) {
                    lines.push(format!(
                        "two processes, {size} bytes, {name}, {what}: {:.2} million messages/s, {:.2} ({:.2} - {:.2}) \
                         of plain's time, {:.2} of its processor time",
                        1e3 / value.median, times.median, times.low, times.high, cpu.median
                    ));
                }
            }
        }
        lines
    }
}

const NOT_OF_INTEREST: &str = "not measured between two processes";

fn ratio(theirs: &[Taken], mine: &[Taken], value: impl Fn(&Taken) -> f64) -> Option<Spread> {
    Spread::of(theirs.iter().zip(mine).map(|(theirs, mine)| value(theirs) / value(mine)).collect())
}

fn measure(
    contestants: &[Box<dyn Contestant>],
    size: usize,
    plan: &Plan,
    progress: &Progress,
) -> Measured {
    let mut entrants = Vec::new();
    for name in contestants.iter().map(|one| one.name()) {
        match name {
            REFERENCE => entrants.push((name, Pipe::Plain)),
            URING | EPOLL => entrants.extend(WAYS.map(|(way, ..)| (name, way))),
            _ => {}
        }
    }
    // A message takes about a microsecond.
    let count = plan.slice.as_micros() as usize * 5 / 2;
    let Measured { mut rounds, mut failures } = Measured::default();
    for round in 0..plan.all_rounds() {
        let first = round % entrants.len().max(1);
        entrants.rotate_left(first);
        entrants.retain(|&(name, way)| {
            progress.now("one way, two processes", name, round, plan.all_rounds());
            match round_of(name, way, size, count) {
                Ok(taken) => rounds.entry((name, way)).or_default().push(taken),
                Err(reason) => {
                    failures.push((name, format!("failed: {reason}")));
                    return false;
                }
            }
            true
        });
    }
    // Rounds are compared one by one, so what failed half-way has none.
    rounds.retain(|_, taken| taken.len() == plan.all_rounds());
    Measured { rounds, failures }
}

fn round_of(name: &str, way: Pipe, size: usize, count: usize) -> Result<Taken, String> {
    let mut command = Command::new(this_program()?);
    command.args(["--child", "pipe", name, id(way), &size.to_string(), &count.to_string()]);
    let text = output(&mut command)?;
    let line = text.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).map_err(|error| error.to_string())
}

fn id(way: Pipe) -> &'static str {
    WAYS.iter().find(|(known, ..)| *known == way).map_or("", |(_, id, _)| *id)
}

/// What `--child pipe NAME WAY SIZE COUNT` does, and `pipe-sender` with a socket as standard input.
pub fn child(side: &str, name: &str, way: &str, size: usize, count: usize) -> Result<(), String> {
    let known = WAYS.iter().find(|(_, id, _)| *id == way).ok_or("no such way")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = if side == "pipe" {
        receiver(&runtime, name, known, size, count)
    } else {
        runtime.block_on(async {
            let end = io::stdin().as_fd().try_clone_to_owned()?;
            let mut end = End::adopt(name, end)?;
            end.send(known.0, size, warm_up(count)).await?;
            let cpu = processor_time();
            end.send(known.0, size, count).await?;
            println!("{}", each(processor_time() - cpu, count));
            Ok(())
        })
    };
    done.map_err(|error| error.to_string())
}

fn warm_up(count: usize) -> usize {
    count / 4
}

fn receiver(
    runtime: &tokio::runtime::Runtime,
    name: &str,
    &(way, id, _): &(Pipe, &str, &str),
    size: usize,
    count: usize,
) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (here, there) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let program = this_program().map_err(io::Error::other)?;
    let child = Command::new(program)
        .args(["--child", "pipe-sender", name, id, &size.to_string(), &count.to_string()])
        .stdin(Stdio::from(there))
        .stdout(Stdio::piped())
        .spawn()?;
    let (took, receiver) = runtime.block_on(async {
        let mut end = End::adopt(name, here)?;
        end.recv(way, size, warm_up(count)).await?;
        let (begin, cpu) = (Instant::now(), processor_time());
        end.recv(way, size, count).await?;
        io::Result::Ok((begin.elapsed(), processor_time() - cpu))
    })?;
    let sender = child.wait_with_output()?;
    let printed = String::from_utf8_lossy(&sender.stdout);
    let sender = printed.trim().parse().map_err(|_| io::Error::other("the sender failed"))?;
    let taken = Taken { value: each(took, count), receiver: each(receiver, count), sender };
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

fn each(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One end, in its own process.
enum End {
    Ours(UnixSeqpacket),
    Reference(<Current as Library>::Socket),
}

impl End {
    fn adopt(name: &str, end: OwnedFd) -> io::Result<Self> {
        let backend = match name {
            REFERENCE => return Ok(Self::Reference(Current.adopt(end)?)),
            EPOLL => Backend::Epoll,
            _ => Backend::Uring,
        };
        Ok(Self::Ours(Options::new().backend(backend).socket_from_fd(end)?))
    }

    async fn send(&mut self, way: Pipe, size: usize, count: usize) -> io::Result<()> {
        let mut message = vec![7; size];
        let socket = match self {
            Self::Ours(socket) => &*socket,
            Self::Reference(socket) => {
                for _ in 0..count {
                    socket.send(&mut message).await?;
                }
                return Ok(());
            }
        };
        match way {
            Pipe::Bytes => {
                let message = Bytes::from(message);
                for _ in 0..count {
                    whole(socket.send_owned(message.clone()).await.0?, &message)?;
                }
            }
            Pipe::Framed => {
                let message = Bytes::from(message);
                let mut frames = Framed::new(AsSocket(socket), BytesCodec::new());
                for _ in 0..count {
                    frames.send(message.clone()).await?;
                }
            }
            Pipe::Batches => {
                let mut batch = socket.batch();
                let mut left = count;
                while left > 0 {
                    batch.clear();
                    (0..left.min(AT_ONCE)).for_each(|_| batch.push(&message));
                    left -= batch.send().await?;
                }
            }
            Pipe::Plain => {
                for _ in 0..count {
                    whole(socket.send(&message).await?, &message)?;
                }
            }
        }
        Ok(())
    }

    async fn recv(&mut self, way: Pipe, size: usize, count: usize) -> io::Result<()> {
        let mut buffer = vec![0; size];
        let same = |len: usize| if len == size { Ok(()) } else { Err(truncated()) };
        let socket = match self {
            Self::Ours(socket) => &*socket,
            Self::Reference(socket) => {
                for _ in 0..count {
                    same(socket.recv(&mut buffer).await?)?;
                }
                return Ok(());
            }
        };
        match way {
            // A message outlives the next receive, as a service keeps it.
            Pipe::Bytes => {
                for _ in 0..count {
                    let (received, bytes) = socket.recv_owned(BytesMut::with_capacity(size)).await;
                    same(received?.bytes_read())?;
                    black_box(bytes.freeze());
                }
            }
            Pipe::Framed => {
                let mut frames = Framed::new(AsSocket(socket), BytesCodec::new());
                for _ in 0..count {
                    let message = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
                    same(message.len())?;
                    black_box(message.freeze());
                }
            }
            Pipe::Batches => {
                let mut bytes = vec![0; size * AT_ONCE];
                let mut infos = Vec::new();
                let mut left = count;
                while left > 0 {
                    let mut buffers: Vec<_> =
                        bytes.chunks_exact_mut(size).take(left).map(IoSliceMut::new).collect();
                    infos.clear();
                    left -= socket.recv_batch(&mut buffers, &mut infos).await?;
                    infos.iter().try_for_each(|info| same(info.bytes_read()))?;
                }
            }
            Pipe::Plain => {
                for _ in 0..count {
                    same(socket.recv(&mut buffer).await?)?;
                    black_box(&buffer);
                }
            }
        }
        Ok(())
    }
}

/// A borrowed socket for a codec, which the next part of a round uses again.
struct AsSocket<'a>(&'a UnixSeqpacket);

impl AsRef<UnixSeqpacket> for AsSocket<'_> {
    fn as_ref(&self) -> &UnixSeqpacket {
        self.0
    }
}
