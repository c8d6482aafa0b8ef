//! `listen` and `connect`: stdin to messages, messages to stdout.

use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tokio::sync::mpsc;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageWriter};
use tokio_seqpacket::{Options, UnixSeqpacket};

use crate::endpoint::{self, CLOSE_CHECK, hung_up, shut_down};
use crate::fds::{self, Attachments, FdAt};
use crate::format::{Format, LARGEST, Layout, Separator};
use crate::run::Stop;
use crate::stdio::{self, Input, Outgoing, Writer, Written};
use crate::{Connect, Listen, many, show, with};

#[derive(Debug, Args)]
pub struct TalkArgs {
    /// Messages in hexadecimal, one a line, in both directions
    #[arg(long, short = 'x', group = "format", help_heading = FORMAT)]
    hex: bool,

    /// Split stdin into messages of this many bytes, and write messages as they are
    #[arg(long, value_name = "BYTES", group = "format", help_heading = FORMAT,
          value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,

    /// Take what each read(2) of stdin returns as a message, newlines included, and write messages as
    /// they are. A message has at most BYTES, 65536 if not given, which is what a pipe holds. An empty
    /// read is the end of stdin: no empty message can be sent
    #[arg(long, short, value_name = "BYTES", group = "format", help_heading = FORMAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "65536",
          value_parser = clap::value_parser!(u32).range(1..=LARGEST as i64))]
    raw: Option<u32>,

    /// Messages with their length before them, 4 bytes big-endian, in both directions
    #[arg(long, short, group = "format", help_heading = FORMAT)]
    length_prefix: bool,

    /// Write this after each message in stdout: text with the escapes \n \r \t \0 \\ \xFF; empty for
    /// nothing. The default is a newline for lines and --hex, nothing for --chunk and --raw
    #[arg(long, short, value_name = "TEXT", conflicts_with = "length_prefix", help_heading = FORMAT)]
    separator: Option<Separator>,

    /// Open this file for reading and send it with the first message; can be repeated. /dev/fd/3 is what
    /// the shell has opened by 3<FILE
    #[arg(long, value_name = "FILE", help_heading = FDS)]
    fd: Vec<PathBuf>,

    /// Open this file for reading and send it with the message of this number, from 1 on; can be
    /// repeated
    #[arg(long, value_name = "NUMBER:FILE", help_heading = FDS,
          value_parser = OsStringValueParser::new().try_map(FdAt::parse))]
    fd_at: Vec<FdAt>,

    /// Save received descriptors in this directory: the content of the second file that came with message
    /// 3 as 3.2. No file is overwritten. A pipe, a socket, a directory or a device has no content to copy:
    /// it is named on stderr
    #[arg(long, value_name = "DIRECTORY", help_heading = FDS)]
    save_fds: Option<PathBuf>,

    /// Show the sender of each message on stderr
    #[arg(long, short)]
    credentials: bool,

    /// End after this many messages were received
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End a connection when the peer shuts down writing, even if stdin has more; implied by --keep,
    /// by --clients and at a terminal
    #[arg(long, short)]
    end_with_peer: bool,

    /// Report on stderr what happens, with the time in UTC: connections, and the length of each message
    /// sent (>) and received (<)
    #[arg(long, short)]
    verbose: bool,
}

const FORMAT: &str = "Messages in stdin and stdout";
const FDS: &str = "Descriptors";

impl TalkArgs {
    fn format(&self) -> Format {
        match (self.chunk, self.raw) {
            (Some(size), _) => Format::Chunks(size as usize),
            (_, Some(size)) => Format::Raw(size as usize),
            _ if self.hex => Format::Hex,
            _ if self.length_prefix => Format::LengthPrefix,
            _ => Format::Lines,
        }
    }

    fn layout(&self) -> Layout {
        let default: &[u8] = match self.format() {
            Format::LengthPrefix => return Layout::LengthPrefix,
            Format::Lines | Format::Hex => b"\n",
            Format::Chunks(_) | Format::Raw(_) => b"",
        };
        let given = self.separator.as_ref().map(|separator| &separator.0[..]);
        Layout::Separated { hex: self.hex, separator: given.unwrap_or(default).to_vec() }
    }
}

pub async fn listen(args: Listen, options: Options, mut stop: Stop) -> io::Result<()> {
    let listener = match (&args.activation, &args.address) {
        (Some(name), _) => endpoint::activated(name, &options)?,
        (None, Some(path)) => endpoint::bind(path, &args.file, &options)?,
        (None, None) => unreachable!("clap wants one of them"),
    };
    let keep = args.keep || args.clients.is_some();
    let (session, input, printers) = Session::new(args.talk, keep)?;
    session.trace(None, || match listener.local_socket_addr() {
        Ok(address) => format!("listening at {address:?} on {}", listener.backend()),
        Err(error) => format!("listening: {error}"),
    });
    let mut source = Source { input, pending: None };
    let end = tokio::select! {
        end = async {
            match (args.clients, keep) {
                (Some(limit), _) => many::serve(&session, &listener, source.input, limit).await,
                (None, true) => one_after_the_other(&session, &listener, &mut source).await,
                (None, false) => {
                    let socket = endpoint::accept(&mut listener.incoming()?).await?;
                    // Removes the socket file: no other connection is accepted.
                    drop(listener);
                    only(&session, &socket, &mut source).await
                }
            }
        } => end,
        () = stop.requested() => Ok(()),
    };
    printers.finish(session, end).await
}

pub async fn connect(args: Connect, options: Options, mut stop: Stop) -> io::Result<()> {
    let (session, input, printers) = Session::new(args.talk, false)?;
    let mut source = Source { input, pending: None };
    let end = tokio::select! {
        end = async {
            let (socket, _bound) =
                endpoint::connect_from(args.bind, &args.address, options).await?;
            session.trace(None, || format!("connected on {}", socket.backend()));
            only(&session, &socket, &mut source).await
        } => end,
        () = stop.requested() => Ok(()),
    };
    printers.finish(session, end).await
}

async fn only(
    session: &Arc<Session>,
    socket: &UnixSeqpacket,
    source: &mut Source,
) -> io::Result<()> {
    match session.talk(socket, None, source).await? {
        End::Input(error) => Err(error),
        End::Peer if source.pending.is_some() => {
            Err(io::Error::other("a message was not sent: the peer has closed"))
        }
        End::Peer | End::Enough => Ok(()),
    }
}

async fn one_after_the_other(
    session: &Arc<Session>,
    listener: &tokio_seqpacket::UnixSeqpacketListener,
    source: &mut Source,
) -> io::Result<()> {
    let mut incoming = listener.incoming()?;
    loop {
        let socket = endpoint::accept(&mut incoming).await?;
        match session.talk(&socket, None, source).await {
            Ok(End::Peer) => {}
            Ok(End::Enough) => return Ok(()),
            Ok(End::Input(error)) => return Err(error),
            Err(error) => session.note(None, error),
        }
    }
}

/// Why a conversation is over.
pub enum End {
    /// The peer has closed.
    Peer,
    /// As many messages have come as were asked for, or stdout is not read any more.
    Enough,
    /// stdin cannot be read, or is not in the format.
    Input(io::Error),
}

/// What is sent.
pub struct Source {
    pub input: Input,
    /// Taken from the input and not sent yet.
    pub pending: Option<Arc<Outgoing>>,
}

/// What all connections of the program share.
pub struct Session {
    args: TalkArgs,
    layout: Layout,
    /// Ends a connection with its peer even if stdin has more: a terminal has no end of its own, and the next connection waits.
    ends_with_peer: bool,
    /// Over all connections.
    received: AtomicU64,
    not_saved: AtomicBool,
    out: Writer,
    err: Writer,
    /// Gets `not_saved` at the end.
    ended: mpsc::UnboundedSender<bool>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.ended.send(*self.not_saved.get_mut());
    }
}

/// The ends of what a session writes to.
struct Printers {
    session: mpsc::UnboundedReceiver<bool>,
    out: Written,
    err: Written,
}

impl Printers {
    /// Waits until everything is written and saved, after a session that ended well or not.
    async fn finish(mut self, session: Arc<Session>, end: io::Result<()>) -> io::Result<()> {
        drop(session);
        // Tasks and threads that save files have it, too.
        let not_saved = self.session.recv().await.expect("sent at the end");
        let written = self.out.finish().await;
        // There is no place to report a failure of stderr.
        let _ = self.err.finish().await;
        end?;
        written?;
        match not_saved {
            true => Err(io::Error::other("not every file that came was saved")),
            false => Ok(()),
        }
    }
}

impl Session {
    fn new(args: TalkArgs, keep: bool) -> io::Result<(Arc<Self>, Input, Printers)> {
        let attachments = Attachments::open(&args.fd, &args.fd_at)?;
        if let Some(directory) = &args.save_fds {
            fs::create_dir_all(directory)
                .map_err(|error| with(&error, format!("cannot make {}", directory.display())))?;
        }
        let input = stdio::input(args.format(), attachments);
        let (out, out_written) = stdio::output(io::stdout());
        let (err, err_written) = stdio::output(io::stderr());
        let (ended, end) = mpsc::unbounded_channel();
        let session = Self {
            layout: args.layout(),
            ends_with_peer: keep || args.end_with_peer || io::stdin().is_terminal(),
            received: AtomicU64::new(0),
            not_saved: AtomicBool::new(false),
            out,
            err,
            ended,
            args,
        };
        let printers = Printers { session: end, out: out_written, err: err_written };
        Ok((Arc::new(session), input, printers))
    }

    /// Writes a line to stderr.
    pub fn note(&self, client: Option<u32>, what: impl Display) {
        let client = client.map_or(String::new(), |number| format!("{number} "));
        self.err.write(format!("seqpacket: {client}{what}\n").into());
    }

    /// Writes a line with the time to stderr if that is asked for.
    pub fn trace(&self, client: Option<u32>, what: impl FnOnce() -> String) {
        if self.args.verbose {
            let client = client.map_or(String::new(), |number| format!("{number} "));
            let line = format!("seqpacket: {} {client}{}\n", show::now(), what());
            self.err.write(line.into());
        }
    }

    /// Runs one connection until the peer closes. The end of stdin is passed on to the peer.
    pub async fn talk(
        self: &Arc<Self>,
        socket: &UnixSeqpacket,
        client: Option<u32>,
        source: &mut Source,
    ) -> io::Result<End> {
        let sending = self.send_all(socket, client, source);
        let receiving = self.receive_all(socket, client);
        let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
        let (mut sent_all, mut received_all) = (false, false);
        loop {
            tokio::select! {
                end = &mut receiving, if !received_all => match end? {
                    End::Peer => received_all = true,
                    end => return Ok(end),
                },
                sent = &mut sending, if !sent_all => match sent {
                    Ok(None) => sent_all = true,
                    Ok(Some(error)) => return Ok(End::Input(error)),
                    Err(error) => {
                        self.trace(client, || format!("> {error}"));
                        // Messages that the peer had sent before it went are not lost.
                        if is_gone(&error) && !received_all {
                            receiving.await?;
                        }
                        return Err(error);
                    }
                },
                () = self.out.closed() => return Ok(End::Enough),
                () = tokio::time::sleep(CLOSE_CHECK), if received_all => {}
            }
            if received_all && (self.ends_with_peer || sent_all || hung_up(socket)) {
                return Ok(End::Peer);
            }
        }
    }

    /// Sends until the end of the input. Returns what is wrong with the input.
    async fn send_all(
        &self,
        socket: &UnixSeqpacket,
        client: Option<u32>,
        source: &mut Source,
    ) -> io::Result<Option<io::Error>> {
        loop {
            self.err.ready().await;
            if source.pending.is_none() {
                match source.input.recv().await.transpose() {
                    Ok(next) => source.pending = next,
                    Err(error) => return Ok(Some(error)),
                }
            }
            let Some(Outgoing { bytes, fds }) = source.pending.as_deref() else { break };
            endpoint::raise_send_buffer(socket, bytes.len())?;
            let sent = if fds.is_empty() {
                socket.send(bytes).await
            } else {
                let mut control = vec![0; 64 + 4 * fds.len()];
                let mut ancillary = AncillaryMessageWriter::new(&mut control);
                ancillary.add_fds_iter(fds).map_err(io::Error::other)?;
                socket.send_with_ancillary(bytes, &mut ancillary).await
            };
            sent.map_err(|error| {
                let refused = !fds.is_empty() && error.kind() == io::ErrorKind::PermissionDenied;
                let why = if refused { ", perhaps the peer accepts no descriptors" } else { "" };
                with(&error, format!("a message was not sent{why}"))
            })?;
            self.trace(client, || format!("> {}{}", show::bytes(bytes.len()), fds::with_fds(fds)));
            source.pending = None;
        }
        shut_down(socket, Shutdown::Write)?;
        self.trace(client, || "> end of stdin".into());
        Ok(None)
    }

    async fn receive_all(
        self: &Arc<Self>,
        socket: &UnixSeqpacket,
        client: Option<u32>,
    ) -> io::Result<End> {
        let mut buffer = Vec::with_capacity(LARGEST);
        let mut ancillary = AncillaryBuffer::new();
        loop {
            self.err.ready().await;
            if !self.out.ready().await {
                return Ok(End::Enough);
            }
            buffer.clear();
            let info;
            (info, buffer, ancillary) = socket.recv_owned_with_ancillary(buffer, ancillary).await;
            let info = match info {
                // The peer went with unread messages. What it had sent still comes.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.note(client, "the peer has closed without reading everything");
                    continue;
                }
                info => info?,
            };
            if info.end_of_stream() != Some(false) {
                self.trace(client, || "< end of stream".into());
                return Ok(End::Peer);
            }
            let number = self.received.fetch_add(1, Ordering::Relaxed) + 1;
            // Another client's message may have been the last that was asked for.
            if self.args.count.is_some_and(|count| number > count) {
                return Ok(End::Enough);
            }
            // First of all, so that it is not lost if the tool is interrupted below.
            self.out.write(self.layout.put(&buffer, client));
            let fds = ancillary.take_fds();
            self.trace(client, || {
                format!("< {}{}", show::bytes(buffer.len()), fds::with_fds(&fds))
            });
            if self.args.credentials
                && let Some(sender) = ancillary.credentials()
            {
                self.note(client, format_args!("from {}", show::sender(sender)));
            }
            if info.truncated() || info.ancillary_truncated() {
                let len = info.message_len();
                self.note(client, format_args!("the message was truncated ({len} bytes)"));
            }
            if self.args.save_fds.is_some() && !fds.is_empty() {
                let session = self.clone();
                // A file of a network may take long. This goes on if the conversation ends meanwhile.
                let saving = move || session.save_fds(client, fds, number);
                tokio::task::spawn_blocking(saving).await.map_err(io::Error::other)?;
            } else {
                for fd in &fds {
                    self.note(client, format_args!("with {}", fds::describe(fd)));
                }
            }
            if self.args.count == Some(number) {
                return Ok(End::Enough);
            }
        }
    }

    /// Names and saves the descriptors of a message.
    fn save_fds(&self, client: Option<u32>, fds: Vec<OwnedFd>, message: u64) {
        let directory = self.args.save_fds.as_deref().expect("called with it only");
        for (fd, number) in fds.into_iter().zip(1..) {
            let what = fds::describe(&fd);
            let to = directory.join(format!("{message}.{number}"));
            let name = to.display();
            let how = match fds::save(fd, &to) {
                Ok(true) => format!("saved as {name}"),
                Ok(false) => "not saved: only files have a content to copy".into(),
                Err(error) => {
                    self.not_saved.store(true, Ordering::Relaxed);
                    format!("not saved as {name}: {error}")
                }
            };
            self.note(client, format_args!("with {what}, {how}"));
        }
    }
}

/// Returns whether a send failed since the peer has gone, or reads no more. Then a reset is reported to a send or to a
/// receive, whichever comes first.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
