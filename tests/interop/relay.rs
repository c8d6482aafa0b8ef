//! The tool's relay: between two sockets of this process, the tool itself, Python and socat.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options, UnixSeqpacket, UnixSeqpacketListener};

use crate::harness::Test;
use crate::tool::tool;
use crate::{Place, Program, connect, recv, run, until_there, with};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = with![
        None;
        messages_pass_both_ways_and_are_shown,
        descriptors_and_credentials_pass,
        each_direction_ends_by_itself,
        a_peer_that_closes_is_closed_to_the_other,
        a_reset_is_shown_and_loses_no_message,
        large_messages_pass,
        a_missing_server_is_named,
        clients_are_numbered,
        messages_are_shown_as_asked,
        a_signal_ends_the_relay_and_leaves_no_file,
        a_stdout_that_is_not_read_ends_the_relay,
    ];
    tests.extend(with![Some("python3"); python_talks_through_a_relay]);
    tests.extend(with![Some("socat"); socat_talks_through_a_relay]);
    tests
}

/// A relay, its server's listener, and what it shows.
struct Between {
    place: Place,
    server: UnixSeqpacketListener,
    relay: Program,
    shown: BufReader<std::process::ChildStdout>,
}

impl Between {
    fn new(backend: Backend, args: &[&str]) -> Self {
        let place = Place::new();
        let server = Options::new().backend(backend).bind(server_path(&place), 4).unwrap();
        let mut relay = start(backend, &place, args);
        until_there(&place.path);
        let shown = BufReader::new(relay.stdout());
        Self { place, server, relay, shown }
    }

    /// A client and its connection at the server.
    async fn pair(&self, backend: Backend) -> (UnixSeqpacket, UnixSeqpacket) {
        let client = connect(backend, &self.place.path).await;
        (client, self.server.accept().await.unwrap())
    }

    /// The next line without its time.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.shown.read_line(&mut line).unwrap();
        let (time, what) = line.split_at(16);
        assert!(time.chars().all(|c| c.is_ascii_digit() || " :.".contains(c)), "{line}");
        what.trim_end().to_owned()
    }

    fn connected(&mut self, number: u32) {
        let expected = format!("{number} connected: pid {}, uid ", std::process::id());
        let line = self.line();
        assert!(line.starts_with(&expected), "{line}");
    }
}

fn server_path(place: &Place) -> PathBuf {
    place.path.with_file_name("server")
}

fn start(backend: Backend, place: &Place, args: &[&str]) -> Program {
    let mut command = tool(backend, &[&["relay"], args].concat());
    Program::start(command.arg(&place.path).arg(server_path(place)))
}

fn messages_pass_both_ways_and_are_shown(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &["--once"]);
        let (client, server) = between.pair(backend).await;
        between.connected(1);
        client.set_pass_credentials(true).unwrap();
        for (from, to, way) in [(&client, &server, '>'), (&server, &client, '<')] {
            for (message, shown) in [
                (&b"hello\n"[..], r#"6 bytes "hello\n""#),
                (b"", r#"0 bytes """#),
                (b"\xff", r#"1 byte "\xff""#),
            ] {
                from.send(message).await.unwrap();
                assert_eq!(recv(to).await, message);
                assert_eq!(between.line(), format!("1 {way} {shown}"));
            }
        }
        drop(client);
        assert_eq!(recv(&server).await, b"");
        assert_eq!(between.line(), "1 > end of stream");
        drop(server);
        let mut line = between.line();
        if line == "1 < end of stream" {
            line = between.line();
        }
        assert_eq!(line, "1 closed");
        between.relay.succeeds();
        assert!(!between.place.path.exists());
    });
}

fn descriptors_and_credentials_pass(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &["--credentials"]);
        // The first client may come before the relay's listener asks for credentials.
        let _first = between.pair(backend).await;
        between.connected(1);
        let (client, server) = between.pair(backend).await;
        between.connected(2);
        let file = between.place.file("passed", b"content");
        let (pipe, _writer) = std::io::pipe().unwrap();
        for (from, to, way) in [(&client, &server, '>'), (&server, &client, '<')] {
            let fds: [OwnedFd; 2] =
                [File::open(&file).unwrap().into(), pipe.try_clone().unwrap().into()];
            to.set_pass_credentials(true).unwrap();
            let ancillary = AncillaryBuffer::from_iter(fds);
            from.send_owned_with_ancillary(b"both".to_vec(), ancillary).await.0.unwrap();
            let (info, bytes, mut ancillary) =
                to.recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new()).await;
            assert!(!info.unwrap().ancillary_truncated());
            assert_eq!(bytes, b"both");
            let fds: Vec<OwnedFd> = ancillary.drain_fds().collect();
            assert_eq!(fds.len(), 2);
            let content = std::io::read_to_string(File::from(fds.into_iter().next().unwrap()));
            assert_eq!(content.unwrap(), "content");

            let own = format!("pid {}, uid ", std::process::id());
            let line = between.line();
            let shown = format!("2 {way} 4 bytes \"both\" from {own}");
            assert!(line.starts_with(&shown), "{line}");
            let kinds = format!(" with file {}, pipe pipe:[", file.display());
            assert!(line.contains(&kinds), "{line}");
            // Root may pass the sender's credentials on. Anyone else's are the relay's, which is said.
            let pid = ancillary.credentials().unwrap().pid();
            if pid != Some(std::process::id() as i32) {
                assert_eq!(pid, Some(between.relay.0.id() as i32));
                let line = between.line();
                assert!(line.contains("the relay's credentials"), "{line}");
            }
        }
    });
}

fn each_direction_ends_by_itself(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &[]);
        let (client, server) = between.pair(backend).await;
        between.connected(1);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(recv(&server).await, b"");
        assert_eq!(between.line(), "1 > end of stream");
        server.send(b"still").await.unwrap();
        assert_eq!(recv(&client).await, b"still");
        assert_eq!(between.line(), r#"1 < 5 bytes "still""#);
        server.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(recv(&client).await, b"");
        assert_eq!(between.line(), "1 < end of stream");
        assert_eq!(between.line(), "1 closed");
    });
}

/// The other side does not wait for an end of stream: it only sends.
fn a_peer_that_closes_is_closed_to_the_other(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &[]);
        for number in 1..=2 {
            let (client, server) = between.pair(backend).await;
            between.connected(number);
            let (stays, goes) = if number == 1 { (client, server) } else { (server, client) };
            goes.send(b"last").await.unwrap();
            drop(goes);
            let error = loop {
                match stays.send(b"m").await {
                    Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                    Err(error) => break error,
                }
            };
            // A reset if the relay has not read all.
            use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
            assert!(matches!(error.kind(), BrokenPipe | ConnectionReset), "{error}");
            // Messages of both stand between.
            while between.line() != format!("{number} closed") {}
            let mut found = Vec::new();
            let mut buffer = [0; 8];
            loop {
                match stays.recv(&mut buffer).await {
                    Ok(0) => break,
                    Ok(len) => found.push(buffer[..len].to_vec()),
                    // The relay went with unread messages.
                    Err(error) => assert_eq!(error.kind(), ConnectionReset),
                }
            }
            assert_eq!(found, [b"last"]);
        }
    });
}

fn a_reset_is_shown_and_loses_no_message(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &[]);
        let (client, server) = between.pair(backend).await;
        between.connected(1);
        server.send(b"not read").await.unwrap();
        assert_eq!(between.line(), r#"1 < 8 bytes "not read""#);
        client.readable().await.unwrap();
        client.send(b"one").await.unwrap();
        client.send(b"two").await.unwrap();
        drop(client);
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "1 > end of stream") {
            lines.push(between.line());
        }
        assert!(lines.contains(&"1 > reset".to_owned()), "{lines:?}");
        assert_eq!(recv(&server).await, b"one");
        assert_eq!(recv(&server).await, b"two");
        assert_eq!(recv(&server).await, b"");
    });
}

fn large_messages_pass(backend: Backend) {
    run(async {
        let between = Between::new(backend, &["--show", "1"]);
        let (client, server) = between.pair(backend).await;
        // Also more than a socket sends by default, where the machine allows it.
        let by_default = client.max_message_size().unwrap();
        client.set_send_buffer_size(2 * by_default).unwrap();
        for size in [by_default, client.max_message_size().unwrap()] {
            let message: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let sending = client.send(&message);
            let receiving = server.recv_owned(Vec::with_capacity(size + 1));
            let (sent, (info, bytes)) = tokio::join!(sending, receiving);
            assert_eq!(sent.unwrap(), size);
            let _ = info.unwrap();
            assert!(bytes == message);
        }
    });
}

fn a_missing_server_is_named(backend: Backend) {
    run(async {
        for once in [true, false] {
            let place = Place::new();
            let mut relay = start(backend, &place, if once { &["--once"] } else { &[] });
            let mut shown = BufReader::new(relay.stdout());
            // The relay goes on with further clients.
            for number in 1..=if once { 1 } else { 2 } {
                let client = connect(backend, &place.path).await;
                assert_eq!(recv(&client).await, b"");
                let mut line = String::new();
                shown.read_line(&mut line).unwrap();
                assert!(line.contains(" connected: pid "), "{line}");
                line.clear();
                shown.read_line(&mut line).unwrap();
                let server = server_path(&place).display().to_string();
                let expected = format!(" {number} cannot connect: {server}: ");
                assert!(line.contains(&expected), "{line}");
            }
            if once {
                let (code, _, errors) = relay.end();
                assert_eq!(code, Some(1));
                assert!(errors.contains("cannot connect"), "{errors}");
            }
        }
    });
}

fn clients_are_numbered(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &[]);
        let (one, at_one) = between.pair(backend).await;
        between.connected(1);
        let (two, at_two) = between.pair(backend).await;
        between.connected(2);
        two.send(b"two").await.unwrap();
        assert_eq!(recv(&at_two).await, b"two");
        assert_eq!(between.line(), r#"2 > 3 bytes "two""#);
        at_one.send(b"one").await.unwrap();
        assert_eq!(recv(&one).await, b"one");
        assert_eq!(between.line(), r#"1 < 3 bytes "one""#);
    });
}

fn messages_are_shown_as_asked(backend: Backend) {
    run(async {
        for (args, lines) in [
            (&["--show", "4"][..], &[r#"1 > 18 bytes "0123" and 14 more"#][..]),
            (
                &["--hex"],
                &[
                    "1 > 18 bytes",
                    "    000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef",
                    "    000010  0a ff                                            ..",
                ],
            ),
        ] {
            let mut between = Between::new(backend, args);
            let (client, server) = between.pair(backend).await;
            between.connected(1);
            client.send(b"0123456789abcdef\n\xff").await.unwrap();
            recv(&server).await;
            assert_eq!(between.line(), lines[0]);
            for expected in &lines[1..] {
                let mut line = String::new();
                between.shown.read_line(&mut line).unwrap();
                assert_eq!(line.trim_end_matches('\n'), *expected);
            }
        }
    });
}

fn a_signal_ends_the_relay_and_leaves_no_file(backend: Backend) {
    run(async {
        let mut between = Between::new(backend, &["--mode", "600"]);
        let (client, server) = between.pair(backend).await;
        between.connected(1);
        client.send(b"before").await.unwrap();
        assert_eq!(recv(&server).await, b"before");
        between.relay.signal(Signal::TERM);
        assert_eq!(recv(&client).await, b"");
        assert_eq!(recv(&server).await, b"");
        assert_eq!(between.line(), r#"1 > 6 bytes "before""#);
        let (code, _, errors) = between.relay.end();
        assert_eq!(code, Some(143), "{errors}");
        assert!(!between.place.path.exists());
    });
}

fn a_stdout_that_is_not_read_ends_the_relay(backend: Backend) {
    run(async {
        let Between { place, server, relay, shown } = Between::new(backend, &[]);
        drop(shown);
        let client = connect(backend, &place.path).await;
        // It connects while it finds that out.
        let accepting = server.accept();
        let (code, _, errors) = tokio::join!(
            async { tokio::task::spawn_blocking(move || relay.end()).await.unwrap() },
            async {
                let _ = tokio::time::timeout(std::time::Duration::from_secs(1), accepting).await;
            }
        )
        .0;
        assert_eq!(code, Some(0), "{errors}");
        assert!(!place.path.exists());
        drop(client);
    });
}

/// Python at both ends, with descriptors.
fn python_talks_through_a_relay(backend: Backend) {
    const SERVER: &str = r#"
import os, socket, sys
here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
here.bind(sys.argv[1])
here.listen(1)
peer = here.accept()[0]
message, fds, flags, _ = socket.recv_fds(peer, 100, 4)
peer.send(message + b": " + os.read(fds[0], 100))
assert peer.recv(100) == b""
"#;
    const CLIENT: &str = r#"
import os, socket, sys
here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
here.connect(sys.argv[1])
socket.send_fds(here, [b"a file"], [os.open(sys.argv[2], os.O_RDONLY)])
print(here.recv(100).decode())
"#;
    let place = Place::new();
    let file = place.file("passed", b"its content");
    let server = server_path(&place);
    let server_ends = Program::start(Command::new("python3").args(["-c", SERVER]).arg(&server));
    until_there(&server);
    let relay = start(backend, &place, &["--once"]);
    until_there(&place.path);
    let python = &mut Command::new("python3");
    let client = Program::start(python.args(["-c", CLIENT]).arg(&place.path).arg(&file));
    assert_eq!(client.succeeds(), b"a file: its content\n");
    server_ends.succeeds();
    let shown = String::from_utf8(relay.succeeds()).unwrap();
    let sent = format!(r#"> 6 bytes "a file" with file {}"#, file.display());
    assert!(shown.contains(&sent), "{shown}");
    assert!(shown.contains(r#"< 19 bytes "a file: its content""#), "{shown}");
}

/// socat at both ends. What it sends at once is one message.
fn socat_talks_through_a_relay(backend: Backend) {
    let place = Place::new();
    let server = server_path(&place);
    let listen = format!("UNIX-LISTEN:{},socktype=5", server.display());
    let _server = Program::start(Command::new("socat").args([&listen, "PIPE"]));
    until_there(&server);
    let relay = start(backend, &place, &["--once"]);
    until_there(&place.path);
    let to = format!("UNIX-CONNECT:{},socktype=5", place.path.display());
    let mut client = Program::start(Command::new("socat").args(["-t5", "-", &to]));
    client.stdin().write_all(b"there and back").unwrap();
    assert_eq!(client.succeeds(), b"there and back");
    let shown = String::from_utf8(relay.succeeds()).unwrap();
    for way in ['>', '<'] {
        let line = format!(r#" 1 {way} 14 bytes "there and back""#);
        assert!(shown.contains(&line), "{shown}");
    }
}
