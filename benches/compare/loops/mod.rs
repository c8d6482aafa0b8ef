//! Contestants without tokio: a loop on each thread, driven round by round.

pub mod calls;
mod mmsg;
pub mod monoio;
pub mod ring;

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::contestants::{Rig, Round};

/// One thread's part of a round: takes the number of repetitions, returns the times of single operations, if any.
pub type Turn = Box<dyn FnMut(usize) -> io::Result<Vec<f64>>>;
/// Makes it on the thread where it stays.
pub type Maker = Box<dyn FnOnce() -> io::Result<Turn> + Send>;

/// Threads that make their turns at the same time. The round takes as long as the longest.
pub struct Threads {
    commands: Vec<mpsc::Sender<usize>>,
    done: mpsc::Receiver<io::Result<(Duration, Vec<f64>)>>,
    threads: Vec<JoinHandle<()>>,
    pairs: usize,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Threads {
    pub fn new(pairs: usize, makers: Vec<Maker>) -> Result<Self, String> {
        let (done_sender, done) = mpsc::channel();
        let mut rig = Self { commands: Vec::new(), done, threads: Vec::new(), pairs };
        for maker in makers {
            let (command, commands) = mpsc::channel();
            let done = done_sender.clone();
            rig.commands.push(command);
            rig.threads.push(std::thread::spawn(move || {
                let mut turn = match maker() {
                    Ok(turn) => turn,
                    Err(error) => return done.send(Err(error)).unwrap_or(()),
                };
                let _ = done.send(Ok(Default::default()));
                for each in commands {
                    let begin = Instant::now();
                    let samples = turn(each);
                    let _ = done.send(samples.map(|samples| (begin.elapsed(), samples)));
                }
            }));
        }
        rig.gather()?;
        Ok(rig)
    }

    fn gather(&mut self) -> Result<(Duration, Vec<f64>), String> {
        let (mut longest, mut all) = (Duration::ZERO, Vec::new());
        for _ in 0..self.threads.len() {
            let received = self.done.recv_timeout(PATIENCE);
            // A thread that waits for one that failed never ends.
            let received = received.map_err(|_| format!("hung: no end after {PATIENCE:?}"));
            let result = received.and_then(|result| result.map_err(|error| error.to_string()));
            let (took, samples) = result.inspect_err(|_| self.threads.clear())?;
            longest = longest.max(took);
            all.extend(samples);
        }
        Ok((longest, all))
    }
}

impl Rig for Threads {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        for command in &self.commands {
            command.send(each).map_err(|_| "failed before")?;
        }
        let (took, samples) = self.gather()?;
        Ok(Round { took, operations: each * self.pairs, samples })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.commands.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
