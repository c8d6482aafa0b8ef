//! `bench`: the short comparison of the backends. The long one is in the repository, `benches/`.
//!
//! With `--one-way` the tool starts itself once more, as the sender. The socket is its standard input.

use std::fmt::Write;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_seqpacket::{Backend, Options, UnixSeqpacket, metrics};

#[derive(Debug, Args)]
pub struct Bench {
    /// Seconds for each backend and number of connections
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,

    /// Bytes of a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    size: u32,

    /// Numbers of connections that are busy at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 128],
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    pairs: Vec<u16>,

    /// Many small messages one way between two processes, by single calls and in batches, instead of
    /// round trips on one thread
    #[arg(long, conflicts_with = "pairs")]
    one_way: bool,

    /// For the process that `--one-way` starts: sends this way on the socket that is its standard input
    #[arg(long, hide = true, value_enum)]
    sender: Option<Way>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number from 0.01 to 600".into()),
    }
}

/// Rounds in which the backends take turns, since the speed of a machine changes over time.
const ROUNDS: usize = 5;

/// A backend by name.
type Candidate = (Backend, Options);

pub fn run(bench: Bench, only: Option<Options>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(way) = bench.sender {
        let end = io::stdin().as_fd().try_clone_to_owned()?;
        return runtime.block_on(send(end, way, bench.size as usize, only.unwrap_or_default()));
    }
    let mut text = String::new();
    let candidates = candidates(&runtime, only, &mut text)?;
    if bench.one_way {
        one_way(&runtime, &bench, &candidates, &mut text)?;
    } else {
        round_trips(&runtime, &bench, &candidates, &mut text)?;
    }
    crate::write_out(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The backends to compare.
fn candidates(
    runtime: &Runtime,
    only: Option<Options>,
    text: &mut String,
) -> io::Result<Vec<Candidate>> {
    if let Some(options) = only {
        return Ok(vec![(runtime.block_on(async { options.pair() })?.0.backend(), options)]);
    }
    let mut both = Vec::new();
    for backend in [Backend::Epoll, Backend::Uring] {
        let options = Options::new().backend(backend);
        match runtime.block_on(async { options.pair() }) {
            Ok(_) => both.push((backend, options)),
            Err(error) => {
                let _ = writeln!(text, "{backend} is left out: {error}\n");
            }
        }
    }
    Ok(both)
}

fn round_trips(
    runtime: &Runtime,
    bench: &Bench,
    candidates: &[Candidate],
    text: &mut String,
) -> io::Result<()> {
    text.push_str("Nanoseconds for a message there and one back, on one thread.\n\n");
    let _ = write!(text, "{:>12}", "connections");
    for (backend, _) in candidates {
        let _ = write!(text, "{:>12}", backend.to_string());
    }
    let ratio = if candidates.len() == 2 { format!("{:>12}", "ratio") } else { String::new() };
    let _ = writeln!(text, "{ratio}{:>12}", "batched");
    for &pairs in &bench.pairs {
        let before = runtime.block_on(async { metrics() })?.total();
        let mut times = vec![Vec::new(); candidates.len()];
        let round = Duration::from_secs_f64(bench.seconds / ROUNDS as f64);
        for _ in 0..ROUNDS {
            for ((_, options), times) in candidates.iter().zip(&mut times) {
                let size = bench.size as usize;
                times.push(runtime.block_on(echo(options, pairs, size, round))?);
            }
        }
        let medians: Vec<f64> = times.into_iter().map(median).collect();
        let _ = write!(text, "{pairs:>12}");
        for median in &medians {
            let _ = write!(text, "{median:>12.0}");
        }
        if let [epoll, uring] = medians[..] {
            let _ = write!(text, "{:>12.2}", uring / epoll);
        }
        let total = runtime.block_on(async { metrics() })?.total();
        let batched = total.submissions - before.submissions;
        let direct = total.direct_calls - before.direct_calls;
        let _ =
            writeln!(text, "{:>11.0}%", 100.0 * batched as f64 / (batched + direct).max(1) as f64);
    }
    let metrics = runtime.block_on(async { metrics() })?;
    if let Some(threshold) = metrics.threshold {
        let _ = writeln!(
            text,
            "\nbatched: the share of io_uring's operations that went through the ring, {:.0} with each \
             io_uring_enter.\nOn this machine a batch pays from {threshold:.1} operations on.",
            metrics.total().operations_per_enter()
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the nanoseconds of a round trip, while so many pairs of sockets make them at the same time.
async fn echo(options: &Options, pairs: u16, size: usize, time: Duration) -> io::Result<f64> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..pairs {
        let (here, there) = options.pair()?;
        tasks.spawn(async move {
            let mut buffer = vec![0; size];
            loop {
                let len = there.recv(&mut buffer).await?;
                if len == 0 {
                    return Ok(0);
                }
                there.send(&buffer[..len]).await?;
            }
        });
        tasks.spawn(async move {
            let mut buffer = vec![0; size];
            let mut trips = 0_u64;
            while begin.elapsed() < time {
                here.send(&buffer).await?;
                here.recv(&mut buffer).await?;
                trips += 1;
            }
            io::Result::Ok(trips)
        });
    }
    let mut trips = 0;
    while let Some(ended) = tasks.join_next().await {
        trips += ended.map_err(io::Error::other)??;
    }
    Ok(begin.elapsed().as_nanos() as f64 / trips.max(1) as f64)
}

/// How messages go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One call for each message
    Plain,
    /// Up to 32 messages with one call
    Batches,
}

/// Messages of one batch.
const AT_ONCE: usize = 32;

/// A ratio of times as far from 1 as this is a difference. Smaller ones come and go from run to run.
const DIFFERENCE: f64 = 0.1;

fn one_way(
    runtime: &Runtime,
    bench: &Bench,
    candidates: &[Candidate],
    text: &mut String,
) -> io::Result<()> {
    let ways = [Way::Plain, Way::Batches];
    let entrants: Vec<_> =
        ways.iter().flat_map(|way| candidates.iter().map(move |one| (*way, one))).collect();
    let mut times = vec![Vec::new(); entrants.len()];
    let round = Duration::from_secs_f64(bench.seconds / ROUNDS as f64);
    for _ in 0..ROUNDS {
        for ((way, candidate), times) in entrants.iter().zip(&mut times) {
            times.push(receive(runtime, candidate, *way, bench.size as usize, round)?);
        }
    }
    let medians: Vec<f64> = times.iter().cloned().map(median).collect();
    let _ = writeln!(
        text,
        "Messages of {} bytes one way between two processes.\n\n{:>12}{:>12}{:>12}{:>16}{:>14}",
        bench.size, "backend", "calls", "ns/message", "messages/s", "quickest"
    );
    for (((way, (backend, _)), median), times) in entrants.iter().zip(&medians).zip(&times) {
        let quickest = times.iter().copied().fold(f64::INFINITY, f64::min);
        let (backend, calls) = (backend.to_string(), format!("{way:?}").to_lowercase());
        let each = 1e9 / median;
        let _ =
            writeln!(text, "{backend:>12}{calls:>12}{median:>12.0}{each:>16.0}{quickest:>11.0} ns");
    }
    let half = candidates.len();
    text.push('\n');
    if half == 2 {
        for (calls, times) in ["single calls", "batches"].into_iter().zip(times.chunks(half)) {
            let verdict = verdict(&times[1], &times[0]);
            let _ = writeln!(text, "io_uring with {calls} is {verdict} of the time on epoll.");
        }
    }
    for (at, (backend, _)) in candidates.iter().enumerate() {
        let verdict = verdict(&times[half + at], &times[at]);
        let _ = writeln!(text, "Batches on {backend} are {verdict} of the time of single calls.");
    }
    Ok(())
}

/// What the times of neighboring rounds say about the first, in comparison with the second.
fn verdict(mine: &[f64], theirs: &[f64]) -> String {
    let ratio = median(mine.iter().zip(theirs).map(|(mine, theirs)| mine / theirs).collect());
    let verdict = match ratio {
        _ if ratio < 1.0 - DIFFERENCE => "a gain",
        _ if ratio > 1.0 + DIFFERENCE => "a loss",
        _ => "no gain and no loss",
    };
    format!("{verdict}: {ratio:.2}")
}

/// Starts the sender, and returns the nanoseconds of a message.
fn receive(
    runtime: &Runtime,
    (backend, options): &Candidate,
    way: Way,
    size: usize,
    time: Duration,
) -> io::Result<f64> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (here, there) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let backend = if *backend == Backend::Epoll { "epoll" } else { "uring" };
    let way_name = way.to_possible_value().expect("no variant is skipped").get_name().to_owned();
    let mut sender = Command::new(std::env::current_exe()?)
        .args(["--backend", backend, "bench", "--sender", &way_name, "--size", &size.to_string()])
        .stdin(Stdio::from(there))
        .spawn()?;
    let taken = runtime.block_on(async {
        let socket = options.socket_from_fd(here)?;
        let mut buffers = vec![0; size * AT_ONCE];
        // The sender has to start first.
        let warm = Instant::now() + time / 4;
        take(&socket, way, size, &mut buffers, warm).await?;
        let begin = Instant::now();
        let count = take(&socket, way, size, &mut buffers, begin + time).await?;
        io::Result::Ok(begin.elapsed().as_nanos() as f64 / count as f64)
    });
    // The socket is closed by now, which ends the sender.
    let ended = sender.wait()?;
    let taken = taken?;
    if !ended.success() {
        return Err(io::Error::other(format!("the sender failed: {ended}")));
    }
    Ok(taken)
}

/// Receives until then, and at least once. Returns how many messages came.
async fn take(
    socket: &UnixSeqpacket,
    way: Way,
    size: usize,
    buffers: &mut [u8],
    until: Instant,
) -> io::Result<u64> {
    let ended = || io::Error::other("the sender ended early");
    let mut infos = Vec::with_capacity(AT_ONCE);
    let mut count = 0;
    loop {
        // The clock is read once for some messages.
        for _ in 0..AT_ONCE {
            match way {
                Way::Plain => {
                    if socket.recv(&mut buffers[..size]).await? == 0 {
                        return Err(ended());
                    }
                    count += 1;
                }
                Way::Batches => {
                    let mut buffers: Vec<_> =
                        buffers.chunks_exact_mut(size).map(IoSliceMut::new).collect();
                    infos.clear();
                    count += socket.recv_batch(&mut buffers, &mut infos).await? as u64;
                    if infos.iter().any(|info| info.bytes_read() == 0) {
                        return Err(ended());
                    }
                }
            }
        }
        if Instant::now() >= until {
            return Ok(count);
        }
    }
}

/// Sends until the peer is gone.
async fn send(end: OwnedFd, way: Way, size: usize, options: Options) -> io::Result<ExitCode> {
    let socket = options.socket_from_fd(end)?;
    let message = vec![7; size];
    let mut batch = socket.batch();
    loop {
        let sent = match way {
            Way::Plain => socket.send(&message).await,
            Way::Batches => {
                batch.clear();
                (0..AT_ONCE).for_each(|_| batch.push(&message));
                batch.send().await
            }
        };
        match sent.map_err(|error| error.kind()) {
            Ok(_) => {}
            Err(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(kind) => return Err(kind.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_none() {
        for (mine, says) in [
            (50.0, "a gain: 0.50"),
            (95.0, "no gain and no loss: 0.95"),
            (105.0, "no gain and no loss: 1.05"),
            (120.0, "a loss: 1.20"),
        ] {
            // One round was disturbed.
            assert_eq!(verdict(&[mine, 900.0, mine], &[100.0; 3]), says);
        }
    }
}
