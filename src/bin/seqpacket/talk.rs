//! `listen` and `connect`: stdin to messages, messages to stdout.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Activation, Options, UnixSeqpacket};

use crate::lines::{self, Format, Output};
use crate::{Connect, Listen, address};

#[derive(Debug, Args)]
pub struct TalkArgs {
    /// Messages in hexadecimal, one a line, in both directions
    #[arg(long, short = 'x')]
    hex: bool,

    /// Split stdin into messages of this many bytes, and write messages as they are
    #[arg(long, value_name = "BYTES", conflicts_with = "hex",
          value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,

    /// Open this file for reading and send it with the first message; can be repeated
    #[arg(long, value_name = "FILE")]
    fd: Vec<PathBuf>,

    /// Show the sender of each message on stderr
    #[arg(long, short)]
    credentials: bool,

    /// End after this many messages were received
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End a connection when the peer shuts down writing, even if stdin has more; implied by --keep
    /// and at a terminal
    #[arg(long, short)]
    end_with_peer: bool,

    /// Report on stderr what happens
    #[arg(long, short)]
    verbose: bool,
}

/// Length of the largest message.
const LARGEST: usize = (4 << 20) + (256 << 10);

pub async fn listen(args: Listen, options: Options) -> io::Result<()> {
    let listener = match (&args.activation, &args.address) {
        (Some(name), _) => {
            let mut passed = Activation::from_env()?.ok_or_else(|| {
                io::Error::other("no sockets were passed (LISTEN_FDS, LISTEN_PID)")
            })?;
            let fd = passed.take(name).ok_or_else(|| {
                let names: Vec<_> = passed.names().collect();
                io::Error::other(format!("none of the passed sockets is named {name:?}: {names:?}"))
            })?;
            options.listener_from_fd(fd)?
        }
        (None, Some(path)) => {
            let mut options = options.replace_stale(args.replace).unlink_on_drop(true);
            if let Some(mode) = args.mode {
                options = options.mode(mode);
            }
            options
                .bind_addr(&address(path)?, 128)
                .map_err(|error| with(&error, format!("cannot listen at {}", path.display())))?
        }
        (None, None) => unreachable!("clap wants one of them"),
    };
    // Set early, so that messages sent before the connection is accepted have them, too.
    listener.set_pass_credentials(true)?;
    let mut talk = Talk::new(args.talk)?;
    talk.say(|| {
        format!("listening at {:?} on {}", listener.local_socket_addr(), listener.backend())
    });
    if !args.keep {
        let socket = listener.accept().await?;
        // Removes the socket file: no other connection is accepted.
        drop(listener);
        talk.with(&socket).await?;
        return talk.finish().await;
    }
    talk.ends_with_peer = true;
    let mut incoming = listener.incoming()?;
    loop {
        let socket = incoming.accept().await?;
        match talk.with(&socket).await {
            Ok(End::Peer) => {}
            Ok(End::Enough) => return talk.output.finish().await,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            Err(error) => eprintln!("seqpacket: {error}"),
        }
    }
}

pub async fn connect(args: Connect, mut options: Options) -> io::Result<()> {
    if let Some(local) = &args.bind {
        options = options.local_addr(address(local)?);
    }
    let mut talk = Talk::new(args.talk)?;
    let socket = options
        .connect_addr(&address(&args.address)?)
        .await
        .map_err(|error| with(&error, format!("cannot connect to {}", args.address.display())))?;
    let bound = args.bind.filter(|_| socket.local_addr().is_ok_and(|a| a.as_pathname().is_some()));
    let _bound = bound.map(Remove);
    // This also distinguishes an empty message from the end.
    socket.set_pass_credentials(true)?;
    talk.say(|| format!("connected on {}", socket.backend()));
    talk.with(&socket).await?;
    talk.finish().await
}

/// The file of `--bind`.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn with(error: &io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Why a conversation is over.
enum End {
    /// The peer has closed.
    Peer,
    /// As many messages have come as were asked for, or stdout is not read any more.
    Enough,
}

struct Talk {
    args: TalkArgs,
    /// Ends a connection with its peer even if stdin has more: a terminal has no end of its own, and the next connection waits.
    ends_with_peer: bool,
    input: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Taken from stdin and not sent yet.
    pending: Option<Vec<u8>>,
    /// Descriptors that go with the first message.
    fds: Vec<OwnedFd>,
    received: u64,
    output: Output,
}

impl Talk {
    fn new(args: TalkArgs) -> io::Result<Self> {
        let format = match (args.hex, args.chunk) {
            (true, _) => Format::Hex,
            (_, Some(size)) => Format::Chunks(size as usize),
            _ => Format::Lines,
        };
        let open = |path: &PathBuf| match fs::File::open(path) {
            Ok(file) => Ok(OwnedFd::from(file)),
            Err(error) => Err(with(&error, format!("cannot open {}", path.display()))),
        };
        Ok(Self {
            fds: args.fd.iter().map(open).collect::<io::Result<_>>()?,
            input: lines::input(format),
            pending: None,
            received: 0,
            ends_with_peer: args.end_with_peer || io::stdin().is_terminal(),
            output: Output::new(format),
            args,
        })
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.args.verbose {
            eprintln!("seqpacket: {}", what());
        }
    }

    /// Runs one connection until the peer closes. The end of stdin is passed on to the peer.
    async fn with(&mut self, socket: &UnixSeqpacket) -> io::Result<End> {
        let Self { args, ends_with_peer, input, pending, fds, received, output } = self;
        let sending = async {
            loop {
                if pending.is_none() {
                    *pending = input.recv().await.transpose()?;
                }
                let Some(message) = &*pending else { break };
                let sent = if fds.is_empty() {
                    socket.send(message).await
                } else {
                    let ancillary = std::mem::take(fds).into_iter().collect();
                    let message = message.clone();
                    socket.send_owned_with_ancillary(message, ancillary).await.0
                };
                sent.map_err(|error| with(&error, "a message was not sent".into()))?;
                *pending = None;
            }
            // The end of stdin.
            match socket.shutdown(std::net::Shutdown::Write) {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
                _ => Ok(()),
            }
        };
        let receiving = receive(args, socket, received, output);
        let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
        let (mut sent_all, mut received_all) = (false, false);
        loop {
            tokio::select! {
                end = &mut receiving, if !received_all => match end? {
                    End::Enough => return Ok(End::Enough),
                    End::Peer => received_all = true,
                },
                sent = &mut sending, if !sent_all => {
                    if let Err(error) = sent {
                        // Messages that the peer had sent before it went are not lost.
                        if error.kind() == io::ErrorKind::BrokenPipe && !received_all {
                            receiving.await?;
                        }
                        // Distinct from a stdout that is not read any more.
                        return Err(io::Error::other(error));
                    }
                    sent_all = true;
                }
                // No event reports a peer that closes after it has shut down writing.
                () = tokio::time::sleep(CLOSE_CHECK), if received_all => {}
            }
            if received_all && (*ends_with_peer || sent_all || hung_up(socket)) {
                return Ok(End::Peer);
            }
        }
    }

    /// Finishes after the only connection.
    async fn finish(self) -> io::Result<()> {
        if self.pending.is_some() {
            return Err(io::Error::other("a message was not sent: the peer has closed"));
        }
        self.output.finish().await
    }
}

const CLOSE_CHECK: Duration = Duration::from_millis(50);

/// Returns whether the peer has closed, and not only shut down writing.
fn hung_up(socket: &UnixSeqpacket) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

async fn receive(
    args: &TalkArgs,
    socket: &UnixSeqpacket,
    received: &mut u64,
    output: &Output,
) -> io::Result<End> {
    let mut buffer = Vec::with_capacity(LARGEST);
    let mut ancillary = AncillaryBuffer::new();
    loop {
        buffer.clear();
        let (info, bytes, with_it) = socket.recv_owned_with_ancillary(buffer, ancillary).await;
        (buffer, ancillary) = (bytes, with_it);
        let info = match info {
            // The peer went with unread messages. What it had sent still comes.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                eprintln!("seqpacket: the peer has closed without reading everything");
                continue;
            }
            info => info?,
        };
        if info.end_of_stream() != Some(false) {
            return Ok(End::Peer);
        }
        if args.credentials
            && let Some(sender) = ancillary.credentials()
        {
            let pid = sender.pid().map_or("another namespace".to_owned(), |pid| pid.to_string());
            eprintln!("from: pid {pid}, uid {}, gid {}", sender.uid(), sender.gid());
        }
        for fd in ancillary.fds() {
            use std::os::fd::AsFd;
            eprintln!("with: {}", describe(fd.as_fd()));
        }
        if info.truncated() || info.ancillary_truncated() {
            eprintln!("seqpacket: the message was truncated ({} bytes)", info.message_len());
        }
        *received += 1;
        if !output.write(&buffer).await || args.count == Some(*received) {
            return Ok(End::Enough);
        }
    }
}

/// Describes what a descriptor refers to.
fn describe(fd: BorrowedFd<'_>) -> String {
    let number = fd.as_raw_fd();
    match fs::read_link(format!("/proc/self/fd/{number}")) {
        Ok(target) => format!("descriptor {number}, {}", target.display()),
        Err(_) => format!("descriptor {number}"),
    }
}
