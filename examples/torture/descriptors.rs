//! Descriptors: tagged files to be passed, pipes whose readers must see the end, how many there are,
//! and the limit on them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of one process. A message's files follow each other, from any of them on.
pub struct Files {
    /// Of this process, among all that ever ran.
    pub owner: u64,
    files: Vec<File>,
}

const FILES: u32 = 32;

impl Files {
    pub fn new() -> io::Result<Self> {
        let owner = fastrand::u64(..);
        let file = |number: u32| {
            let mut file = File::from(rustix::fs::memfd_create("torture", MemfdFlags::CLOEXEC)?);
            file.write_all(&tag(owner, number))?;
            Ok(file)
        };
        Ok(Self { owner, files: (0..FILES).map(file).collect::<io::Result<_>>()? })
    }

    pub fn get(&self, number: u32) -> &File {
        &self.files[(number % FILES) as usize]
    }
}

/// Whether this is the file that its sender said it is.
pub fn is_file(fd: BorrowedFd<'_>, owner: u64, number: u32) -> bool {
    let mut found = [0; 12];
    matches!(rustix::io::pread(fd, &mut found, 0), Ok(12)) && found == tag(owner, number % FILES)
}

fn tag(owner: u64, number: u32) -> [u8; 12] {
    let mut tag = [0; 12];
    tag[..8].copy_from_slice(&owner.to_le_bytes());
    tag[8..].copy_from_slice(&number.to_le_bytes());
    tag
}

/// The reading end of a pipe whose writing end was passed. Once all copies of that are closed, which
/// they are when the connection is over, the reader sees the end.
pub struct Pipe {
    reader: File,
    written: Vec<u8>,
    pub sequence: u64,
}

impl Pipe {
    pub fn new(sequence: u64) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Self { reader: File::from(reader), written: Vec::new(), sequence }, writer))
    }

    /// The receiver leaves its mark.
    pub fn mark(writer: OwnedFd, sequence: u64) {
        // The reader may be gone with its process.
        let _ = File::from(writer).write(&sequence.to_le_bytes());
    }

    /// Whether it has seen the end.
    ///
    /// # Errors
    /// The mark of another message, or more than one mark.
    pub fn has_ended(&mut self) -> Result<bool, String> {
        match self.reader.read_to_end(&mut self.written) {
            Ok(_) if self.written.is_empty() => Ok(true),
            Ok(_) if self.written == self.sequence.to_le_bytes() => Ok(true),
            Ok(_) => Err(format!("the pipe of #{} says {:?}", self.sequence, self.written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("the pipe of #{}: {error}", self.sequence)),
        }
    }
}

/// Pipes of connections that are over.
#[derive(Default)]
pub struct Pipes(Mutex<Vec<Ending>>);

struct Ending {
    pipe: Pipe,
    of: String,
    ticks: u32,
}

impl Pipes {
    pub fn hand_in(&self, pipes: Vec<Pipe>, of: &str) {
        let ending = |pipe| Ending { pipe, of: of.to_owned(), ticks: 0 };
        self.0.lock().unwrap().extend(pipes.into_iter().map(ending));
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// # Errors
    /// A copy of a writing end is still open after so many calls of this.
    pub fn check(&self, patience: u32) -> Result<(), String> {
        let mut wrong = Ok(());
        self.0.lock().unwrap().retain_mut(|ending| {
            ending.ticks += 1;
            match ending.pipe.has_ended() {
                Ok(false) if ending.ticks > patience => {
                    let sequence = ending.pipe.sequence;
                    wrong = Err(format!(
                        "{}: a copy of the pipe's end that #{sequence} carried is still open",
                        ending.of
                    ));
                    false
                }
                Ok(ended) => !ended,
                Err(error) => {
                    wrong = Err(format!("{}: {error}", ending.of));
                    false
                }
            }
        });
        wrong
    }
}

/// The limit on descriptors, which is squeezed now and then.
#[derive(Default)]
pub struct Limit {
    /// Held for reading by code that cannot go on without descriptors, and for writing by the squeeze.
    needed: RwLock<()>,
    squeezed: AtomicBool,
    /// When that was over: milliseconds since `begin`.
    until: AtomicU64,
}

impl Limit {
    /// While this is held nothing is squeezed.
    pub fn need(&self) -> RwLockReadGuard<'_, ()> {
        self.needed.read().unwrap()
    }

    /// Whether descriptors can have been missing for a message that is received now.
    pub fn was_squeezed(&self, begin: Instant) -> bool {
        self.squeezed.load(Ordering::SeqCst)
            || begin.elapsed().as_millis() as u64 <= self.until.load(Ordering::SeqCst)
    }

    /// Leave so many descriptors for that long.
    pub fn squeeze(&self, left: u64, time: Duration, begin: Instant) {
        let needed = self.needed.write().unwrap();
        self.squeezed.store(true, Ordering::SeqCst);
        let before = getrlimit(Resource::Nofile);
        let current = open_fds() as u64 + left;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..before });
        std::thread::sleep(time);
        let _ = setrlimit(Resource::Nofile, before);
        // A message can lie ready for a while until a receive takes it.
        self.until.store(begin.elapsed().as_millis() as u64 + 3000, Ordering::SeqCst);
        self.squeezed.store(false, Ordering::SeqCst);
        drop(needed);
    }

    /// To the hard limit, but 8192 at most.
    pub fn raise() {
        let limit = getrlimit(Resource::Nofile);
        let current = limit.maximum.unwrap_or(8192).min(8192);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    }
}

/// The number of open descriptors of this process.
pub fn open_fds() -> usize {
    // The directory itself is one of them while it is read.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// Resident memory of this process, in KiB.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A duplicate to be given away.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}
