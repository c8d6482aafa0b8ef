//! Single messages, each timed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Runtimes;
use crate::contestants::{Rig, Round};
use crate::libraries::{Library, Socket};
use crate::work::SMALL;

/// Between two round trips.
pub const PAUSE: Duration = Duration::from_micros(200);
/// Before a message is sent beside busy tasks: the receiver is parked by then.
const SETTLED: Duration = Duration::from_millis(1);
/// How long a busy task computes at each poll.
const COMPUTES: Duration = Duration::from_micros(100);

/// Round trips with pauses, so that both sides have gone to sleep by the next.
pub struct Paced<S> {
    client: S,
    runtimes: Runtimes,
}

impl<S: Socket> Paced<S> {
    pub fn new<L: Library<Socket = S>>(library: L, runtimes: Runtimes) -> io::Result<Self> {
        let (mut server, client) = runtimes.pair(&library)?;
        runtimes.servers().spawn(async move {
            let mut buffer = vec![0; SMALL];
            while server.recv(&mut buffer).await? > 0 {
                server.send(&mut buffer).await?;
            }
            io::Result::Ok(())
        });
        Ok(Self { client, runtimes })
    }
}

impl<S: Socket> Rig for Paced<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let client = &mut self.client;
        let begin = Instant::now();
        let samples = self.runtimes.run(async {
            let mut samples = Vec::with_capacity(each);
            let mut message = vec![7; SMALL];
            for _ in 0..each {
                // The runtime has nothing else to do, and timers are coarser.
                std::thread::sleep(PAUSE);
                let start = Instant::now();
                client.send(&mut message).await?;
                client.recv(&mut message).await?;
                samples.push(start.elapsed().as_nanos() as f64);
            }
            Ok(samples)
        })?;
        Ok(Round { took: begin.elapsed(), operations: each, samples })
    }
}

/// Messages between two tasks of a runtime that others keep busy.
pub struct Beside<S> {
    sockets: Option<(S, S)>,
    tasks: usize,
    runtimes: Runtimes,
}

impl<S: Socket> Beside<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        tasks: usize,
    ) -> io::Result<Self> {
        Ok(Self { sockets: Some(runtimes.pair(&library)?), tasks, runtimes })
    }
}

async fn compute(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        while begin.elapsed() < COMPUTES {
            std::hint::spin_loop();
        }
        tokio::task::yield_now().await;
    }
}

impl<S: Socket> Rig for Beside<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let (mut receiver, mut sender) = self.sockets.take().ok_or("failed before")?;
        let begin = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let (arrived, mut arrivals) = mpsc::channel(1);
        let receiving = async move {
            let mut samples = Vec::with_capacity(each);
            let mut buffer = vec![0; SMALL];
            for _ in 0..each {
                receiver.recv(&mut buffer).await?;
                let now = begin.elapsed().as_nanos() as u64;
                let sent = buffer.first_chunk().map_or(now, |stamp| u64::from_le_bytes(*stamp));
                samples.push(now.saturating_sub(sent) as f64);
                let _ = arrived.send(()).await;
            }
            io::Result::Ok((receiver, samples))
        };
        let sending = async move {
            let mut message = vec![0; SMALL];
            for _ in 0..each {
                tokio::time::sleep(SETTLED).await;
                let now = begin.elapsed().as_nanos() as u64;
                message[..8].copy_from_slice(&now.to_le_bytes());
                sender.send(&mut message).await?;
                arrivals.recv().await;
            }
            io::Result::Ok(sender)
        };
        let done = self.runtimes.run(async {
            for _ in 0..self.tasks {
                tokio::spawn(compute(stop.clone()));
            }
            let (receiving, sending) = (tokio::spawn(receiving), tokio::spawn(sending));
            let (receiver, samples) = receiving.await.map_err(io::Error::other)??;
            Ok((receiver, sending.await.map_err(io::Error::other)??, samples))
        });
        stop.store(true, Ordering::Relaxed);
        let (receiver, sender, samples) = done?;
        self.sockets = Some((receiver, sender));
        Ok(Round { took: begin.elapsed(), operations: each, samples })
    }
}
