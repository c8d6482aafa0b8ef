//! Descriptors: those that go with messages of stdin, and those that came with messages.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};

use crate::with;

/// Value of `--fd-at`: `3:/etc/hostname`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdAt {
    pub message: u64,
    pub file: PathBuf,
}

impl FdAt {
    pub fn parse(text: OsString) -> Result<Self, String> {
        let text = text.into_vec();
        let colon = text.iter().position(|byte| *byte == b':');
        let (number, file) = text.split_at(colon.ok_or("not NUMBER:FILE")?);
        match str::from_utf8(number).map(str::parse) {
            Ok(Ok(message @ 1..)) => {
                Ok(Self { message, file: OsString::from_vec(file[1..].to_vec()).into() })
            }
            _ => {
                Err("NUMBER:FILE begins with the number of a message, the first of which is 1"
                    .into())
            }
        }
    }
}

/// Descriptors by the number of the message that they go with.
pub struct Attachments {
    fds: BTreeMap<u64, Vec<OwnedFd>>,
    messages: u64,
}

impl Attachments {
    /// Opens files: those for the first message, and those for any.
    pub fn open(first: &[PathBuf], any: &[FdAt]) -> io::Result<Self> {
        let mut fds = BTreeMap::<u64, Vec<OwnedFd>>::new();
        let first = first.iter().map(|file| (1, file));
        for (message, path) in first.chain(any.iter().map(|at| (at.message, &at.file))) {
            let file = File::open(path)
                .map_err(|error| with(&error, format!("cannot open {}", path.display())))?;
            fds.entry(message).or_default().push(file.into());
        }
        Ok(Self { fds, messages: 0 })
    }

    /// Returns those of the next message.
    pub fn next(&mut self) -> Vec<OwnedFd> {
        self.messages += 1;
        self.fds.remove(&self.messages).unwrap_or_default()
    }

    /// Returns an error that names a message which stdin did not have.
    pub fn all_sent(&self) -> io::Result<()> {
        let Some(message) = self.fds.keys().next() else { return Ok(()) };
        let what = format!("stdin had no message {message}: its descriptors were not sent");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// Says what a descriptor refers to, in one line: `file /etc/hostname`, `pipe pipe:[4711]`.
pub fn describe(fd: impl AsFd) -> String {
    let fd = fd.as_fd();
    let kind = match fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => "file",
        Ok(FileType::Directory) => "directory",
        Ok(FileType::Fifo) => "pipe",
        Ok(FileType::Socket) => "socket",
        Ok(FileType::CharacterDevice | FileType::BlockDevice) => "device",
        _ => "other",
    };
    match fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        // The peer may have chosen that name.
        Ok(target) => format!("{kind} {}", target.as_os_str().as_bytes().escape_ascii()),
        Err(_) => kind.into(),
    }
}

/// Returns ` with file /etc/hostname, pipe pipe:[4711]`, or nothing if there is no descriptor.
pub fn with_fds(fds: &[OwnedFd]) -> String {
    if fds.is_empty() {
        return String::new();
    }
    let kinds: Vec<String> = fds.iter().map(describe).collect();
    format!(" with {}", kinds.join(", "))
}

/// Copies the content of a regular file, from its beginning. `Ok(false)`: it is none, so there is nothing to copy.
pub fn save(fd: OwnedFd, to: &Path) -> io::Result<bool> {
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let mut copy = File::create_new(to)?;
    let (file, mut buffer, mut at) = (File::from(fd), vec![0; 64 << 10], 0);
    loop {
        // The offset is shared with the peer, and stays.
        match file.read_at(&mut buffer, at)? {
            0 => break,
            len => {
                copy.write_all(&buffer[..len])?;
                at += len as u64;
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_for_a_message_from_1_on() {
        let parse = |text: &str| FdAt::parse(text.into());
        let found = parse("12:/a:b").unwrap();
        assert_eq!(found, FdAt { message: 12, file: "/a:b".into() });
        for wrong in ["/etc/hostname", "0:/a", ":/a", "x:/a", "-1:/a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_that_never_came_is_named() {
        let null = PathBuf::from("/dev/null");
        let at = FdAt { message: 3, file: null.clone() };
        let mut attachments = Attachments::open(&[null.clone(), null], &[at]).unwrap();
        assert_eq!(attachments.next().len(), 2);
        assert_eq!(attachments.next().len(), 0);
        let error = attachments.all_sent().unwrap_err();
        assert!(error.to_string().contains("message 3"), "{error}");
        assert_eq!(attachments.next().len(), 1);
        attachments.all_sent().unwrap();
    }
}
