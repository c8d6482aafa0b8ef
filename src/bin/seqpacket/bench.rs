//! `bench`: the short comparison of the backends. The long one is in the repository, `benches/`.

use std::fmt::Write;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;
use tokio_seqpacket::{Backend, Options, metrics};

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
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number from 0.01 to 600".into()),
    }
}

/// Rounds in which the backends take turns, since the speed of a machine changes over time.
const ROUNDS: usize = 5;

pub fn run(bench: Bench, only: Option<Options>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut text = String::from("Nanoseconds for a message there and one back, on one thread.\n\n");
    let candidates = match only {
        Some(options) => {
            let name = runtime.block_on(async { options.pair() })?.0.backend().to_string();
            vec![(name, options)]
        }
        None => {
            let mut both = Vec::new();
            for backend in [Backend::Epoll, Backend::Uring] {
                let options = Options::new().backend(backend);
                match runtime.block_on(async { options.pair() }) {
                    Ok(_) => both.push((backend.to_string(), options)),
                    Err(error) => {
                        let _ = writeln!(text, "{backend} is left out: {error}\n");
                    }
                }
            }
            both
        }
    };
    let _ = write!(text, "{:>12}", "connections");
    for (name, _) in &candidates {
        let _ = write!(text, "{name:>12}");
    }
    let ratio = if candidates.len() == 2 { format!("{:>12}", "ratio") } else { String::new() };
    let _ = writeln!(text, "{ratio}{:>12}", "batched");
    for pairs in bench.pairs {
        let before = runtime.block_on(async { metrics() })?.total();
        let mut times = vec![Vec::new(); candidates.len()];
        let round = Duration::from_secs_f64(bench.seconds / ROUNDS as f64);
        for _ in 0..ROUNDS {
            for ((_, options), times) in candidates.iter().zip(&mut times) {
                let size = bench.size as usize;
                times.push(runtime.block_on(echo(options, pairs, size, round))?);
            }
        }
        let medians: Vec<f64> = times
            .into_iter()
            .map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            })
            .collect();
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
    crate::write_out(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
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
