//! `relay`: stands between clients and a server, passes messages both ways, and shows them.

use std::fmt::{Display, Write};
use std::io;
use std::net::Shutdown;
use std::path::PathBuf;

use clap::Args;
use tokio::task::JoinSet;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Options, UnixSeqpacket};

use crate::endpoint::{self, CLOSE_CHECK, SocketFile, hung_up, shut_down};
use crate::format::LARGEST;
use crate::run::Stop;
use crate::stdio::{self, Writer};
use crate::{fds, show};

#[derive(Debug, Args)]
pub struct Relay {
    /// Where to listen: a path, or @name in the abstract namespace
    listen: PathBuf,

    /// The server, to which a connection is made for each client
    server: PathBuf,

    #[command(flatten)]
    file: SocketFile,

    /// Show messages in hexadecimal, 16 bytes a line
    #[arg(long, short = 'x')]
    hex: bool,

    /// Show at most this many bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 80)]
    show: usize,

    /// Show the sender of each message
    #[arg(long, short)]
    credentials: bool,

    /// End after the first client
    #[arg(long)]
    once: bool,
}

pub const HELP: &str = "\
Each line of stdout has the time in UTC, the client's number, and > from the client or < from the
server:

  14:03:58.123456 1 connected: pid 4711, uid 0, gid 0
  14:03:58.123460 1 > 6 bytes \"hello\\n\"
  14:03:58.123499 1 < 9 bytes \"a file: \\x00\" with file /etc/hostname, pipe pipe:[4712]
  14:03:58.123502 1 > end of stream
  14:03:58.123510 1 closed

A message is shown before it is passed on. A stdout that is not read holds the messages up.

What the server and the client see is as without the relay, except:
  - SO_PEERCRED names the relay.
  - The client's address is one that the kernel has given to the relay.
  - The credentials of a message are the sender's only if the relay may claim them: as root, while
    the sender lives. Otherwise they are the relay's, which a line says.
  - A reset arrives as an end of stream if the relay has read all messages of the other side.

Examples:
  seqpacket relay /tmp/between.sock /tmp/server.sock
  mv /run/x.sock /run/x.real && seqpacket relay --mode 666 /run/x.sock /run/x.real";

pub async fn run(args: Relay, options: Options, mut stop: Stop) -> io::Result<()> {
    let listener = endpoint::bind(&args.listen, &args.file, &options)?;
    let mut incoming = listener.incoming()?;
    let (out, written) = stdio::output(io::stdout());
    let mut clients = JoinSet::new();
    let mut number = 0;
    let end = loop {
        tokio::select! {
            accepted = endpoint::accept(&mut incoming), if !args.once || number == 0 => {
                let client = match accepted {
                    Ok(client) => client,
                    Err(error) => break Err(error),
                };
                number += 1;
                let log = Log {
                    out: out.clone(),
                    number,
                    hex: args.hex,
                    show: args.show,
                    credentials: args.credentials,
                };
                let (server, options, stop) = (args.server.clone(), options.clone(), stop.clone());
                clients.spawn(async move {
                    let end = between(&log, client, server, options, stop).await;
                    if let Err(error) = &end {
                        log.line(error);
                    }
                    end
                });
            }
            Some(done) = clients.join_next() => if args.once {
                break done.expect("a client's task does not panic");
            },
            () = out.closed() => break Ok(()),
            () = stop.requested() => break Ok(()),
        }
    };
    // Each passes on what it has received.
    while end.is_ok() && clients.join_next().await.is_some() {}
    clients.shutdown().await;
    drop(out);
    written.finish().await?;
    end
}

/// Runs one client and its connection to the server.
async fn between(
    log: &Log,
    client: UnixSeqpacket,
    server: PathBuf,
    options: Options,
    stop: Stop,
) -> io::Result<()> {
    match client.peer_cred() {
        Ok(peer) => log.line(format_args!("connected: {}", show::sender(peer))),
        Err(error) => log.line(format_args!("connected: {error}")),
    }
    let server = endpoint::connect(&server, &options).await?;
    let up = pump(log, '>', &client, &server, stop.clone());
    let down = pump(log, '<', &server, &client, stop);
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let (mut up_ended, mut down_ended) = (false, false);
    while !(up_ended && down_ended) {
        tokio::select! {
            () = &mut up, if !up_ended => up_ended = true,
            () = &mut down, if !down_ended => down_ended = true,
            () = tokio::time::sleep(CLOSE_CHECK), if up_ended || down_ended => {
                // One side has no more to say. If it reads no more either, the other has to learn that.
                if up_ended && hung_up(&client) || down_ended && hung_up(&server) {
                    break;
                }
            }
        }
    }
    log.line("closed");
    Ok(())
}

/// Passes messages in one direction until its end, which it passes on, too.
async fn pump(log: &Log, way: char, from: &UnixSeqpacket, to: &UnixSeqpacket, mut stop: Stop) {
    let mut bytes = Vec::with_capacity(LARGEST);
    let mut ancillary = AncillaryBuffer::new();
    let mut may_claim = true;
    loop {
        if !log.out.ready().await {
            return;
        }
        bytes.clear();
        let info;
        tokio::select! {
            // A message that is received is passed on, also when the relay ends.
            received = from.recv_owned_with_ancillary(bytes, ancillary) => {
                (info, bytes, ancillary) = received;
            }
            () = stop.requested() => return,
        }
        let failed = match info {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                log.line(format_args!("{way} reset"));
                // What was sent before still comes.
                continue;
            }
            Err(error) => Err(error),
            Ok(info) if info.end_of_stream() != Some(false) => {
                log.line(format_args!("{way} end of stream"));
                return end_writing(log, way, to);
            }
            Ok(info) => {
                log.message(way, &bytes, &ancillary);
                if info.truncated() || info.ancillary_truncated() {
                    let len = info.message_len();
                    Err(io::Error::other(format!(
                        "the message of {} was truncated",
                        show::bytes(len)
                    )))
                } else {
                    pass(log, way, to, &mut bytes, &mut ancillary, &mut may_claim).await
                }
            }
        };
        if let Err(error) = failed {
            log.line(format_args!("{way} not passed on: {error}"));
            // The sender learns that no message arrives any more.
            let _ = shut_down(from, Shutdown::Read);
            return end_writing(log, way, to);
        }
    }
}

fn end_writing(log: &Log, way: char, to: &UnixSeqpacket) {
    if let Err(error) = shut_down(to, Shutdown::Write) {
        log.line(format_args!("{way} the end of stream was not passed on: {error}"));
    }
}

/// Sends a message as it came, with its descriptors, and with its sender's credentials if possible.
async fn pass(
    log: &Log,
    way: char,
    to: &UnixSeqpacket,
    bytes: &mut Vec<u8>,
    ancillary: &mut AncillaryBuffer,
    may_claim: &mut bool,
) -> io::Result<()> {
    // The sender may have raised its own.
    endpoint::raise_send_buffer(to, bytes.len())?;
    let sender = ancillary.credentials().filter(|sender| *may_claim && sender.pid().is_some());
    if *may_claim && sender.is_none() {
        log.line(format_args!(
            "{way} goes with the relay's credentials: the sender's have no pid here"
        ));
    }
    ancillary.set_credentials(sender);
    let (message, with_it) = (std::mem::take(bytes), std::mem::take(ancillary));
    let mut sent;
    (sent, *bytes, *ancillary) = to.send_owned_with_ancillary(message, with_it).await;
    if let (Err(error), true) = (&sent, sender.is_some())
        && let Some(rustix::io::Errno::PERM | rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) =
            rustix::io::Errno::from_io_error(error)
    {
        log.line(format_args!(
            "{way} goes with the relay's credentials, not the sender's: {error}"
        ));
        // A process that has gone is one of several. The others last.
        *may_claim = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
        ancillary.set_credentials(None);
        let (message, with_it) = (std::mem::take(bytes), std::mem::take(ancillary));
        (sent, *bytes, *ancillary) = to.send_owned_with_ancillary(message, with_it).await;
    }
    sent.map(drop)
}

/// Where the messages of one client are shown, and how.
struct Log {
    out: Writer,
    number: u64,
    hex: bool,
    show: usize,
    credentials: bool,
}

impl Log {
    fn line(&self, what: impl Display) {
        self.out.write(format!("{} {} {what}\n", show::now(), self.number).into());
    }

    fn message(&self, way: char, bytes: &[u8], ancillary: &AncillaryBuffer) {
        let mut text = format!("{way} {}", show::bytes(bytes.len()));
        if !self.hex {
            let _ = write!(text, " {}", show::escaped(bytes, self.show));
        }
        if let Some(sender) = ancillary.credentials().filter(|_| self.credentials) {
            let _ = write!(text, " from {}", show::sender(sender));
        }
        text += &fds::with_fds(ancillary.fds());
        if self.hex && !bytes.is_empty() {
            let _ = write!(text, "\n{}", show::dump(bytes, self.show).trim_end());
        }
        self.line(text);
    }
}
