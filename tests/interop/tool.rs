//! The tool `seqpacket`, with itself, in pipes, with socat, and started by systemd. Its relay is in `relay.rs`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options, UnixSeqpacketListener};

use crate::harness::Test;
use crate::{Place, Program, connect, recv, run, until_there, with};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = with![
        None;
        lines_go_both_ways,
        hexadecimal_goes_both_ways,
        a_file_goes_through_in_chunks,
        each_read_of_stdin_is_a_raw_message,
        a_length_prefix_keeps_messages_apart,
        any_separator_ends_a_message,
        a_message_beyond_the_default_send_buffer_is_sent,
        descriptors_and_credentials_are_shown,
        the_sender_of_a_message_at_once_is_shown,
        descriptors_go_with_the_message_of_their_number,
        a_peer_that_accepts_no_descriptors_is_named,
        files_that_came_are_saved,
        files_that_came_are_saved_before_the_tool_ends,
        direction_and_time_are_marked,
        a_signal_leaves_no_socket_file,
        a_stale_file_is_replaced_when_asked,
        keep_takes_one_connection_after_the_other,
        clients_at_once_are_told_apart,
        a_message_of_stdin_waits_for_a_client_and_goes_to_all,
        no_more_clients_at_once_than_allowed,
        a_closed_stdout_is_no_failure,
        a_closed_stderr_is_no_failure,
        a_failed_send_loses_no_received_message,
        a_signal_lets_received_messages_be_written,
        a_signal_ends_the_tool_although_stdout_is_full,
        exit_codes_say_what_went_wrong,
        the_doctor_names_the_backend,
        the_doctor_names_a_variable_that_no_socket_takes,
        the_doctor_writes_json_with_stable_keys,
        too_few_descriptors_are_an_error,
        a_short_benchmark,
        a_short_benchmark_of_one_way,
        completions_are_scripts,
        a_socket_passed_by_name_is_taken,
    ];
    tests.extend(with![Some("socat"); the_tool_talks_to_socat]);
    tests.extend(with![Some("strace"); the_doctor_names_the_call_that_is_refused]);
    tests.extend(with![Some("systemd-socket-activate"); systemd_starts_it_with_the_first_client]);
    tests
}

pub(crate) fn tool(backend: Backend, args: &[&str]) -> Command {
    let backend = match backend {
        Backend::Epoll => "--backend=epoll",
        Backend::Uring => "--backend=uring",
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_seqpacket"));
    command.arg(backend).args(args);
    command
}

/// `listen` or `connect` at a place.
fn at(backend: Backend, place: &Place, args: &[&str]) -> Program {
    Program::start(tool(backend, args).arg(&place.path))
}

fn lines_go_both_ways(backend: Backend) {
    let place = Place::new();
    let mut server = at(backend, &place, &["listen"]);
    server.stdin().write_all(b"from the server\n").unwrap();
    until_there(&place.path);
    let mut client = at(backend, &place, &["connect"]);
    client.stdin().write_all(b"one\n\nthree, without a newline").unwrap();
    assert_eq!(client.succeeds(), b"from the server\n");
    assert_eq!(server.succeeds(), b"one\n\nthree, without a newline\n");
    assert!(place.is_empty());
}

fn hexadecimal_goes_both_ways(backend: Backend) {
    let place = Place::new();
    let server = at(backend, &place, &["listen", "--hex", "--end-with-peer"]);
    until_there(&place.path);
    let mut client = at(backend, &place, &["connect", "-x"]);
    client.stdin().write_all(b"00 FF 10\nab\n").unwrap();
    client.succeeds();
    assert_eq!(server.succeeds(), b"00ff10\nab\n");
}

fn a_file_goes_through_in_chunks(backend: Backend) {
    let place = Place::new();
    let content: Vec<u8> = (0..300_001u32).map(|at| (at / 7 % 251) as u8).collect();
    let server = at(backend, &place, &["listen", "--chunk", "1"]);
    until_there(&place.path);
    let mut client = at(backend, &place, &["connect", "--chunk", "65536"]);
    let (mut stdin, sent) = (client.stdin(), content.clone());
    let writing = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    assert!(server.succeeds() == content);
    writing.join().unwrap();
    client.succeeds();
}

/// Listens for the tool. The listener is there before the tool starts.
fn listens(backend: Backend, place: &Place) -> UnixSeqpacketListener {
    Options::new().backend(backend).bind(&place.path, 4).unwrap()
}

fn each_read_of_stdin_is_a_raw_message(backend: Backend) {
    let place = Place::new();
    run(async {
        let listener = listens(backend, &place);
        let mut client = at(backend, &place, &["connect", "--raw=8"]);
        let socket = listener.accept().await.unwrap();
        let mut stdin = client.stdin();
        stdin.write_all(b"two\nnow\n").unwrap();
        assert_eq!(recv(&socket).await, b"two\nnow\n");
        stdin.write_all(b"\n").unwrap();
        assert_eq!(recv(&socket).await, b"\n");
        // Two reads.
        stdin.write_all(b"12345678rest").unwrap();
        assert_eq!(recv(&socket).await, b"12345678");
        assert_eq!(recv(&socket).await, b"rest");
        drop(stdin);
        assert_eq!(recv(&socket).await, b"", "stdin has ended");
        for message in [&b"as it"[..], b"", b" is\n"] {
            socket.send(message).await.unwrap();
        }
        drop(socket);
        assert_eq!(client.succeeds(), b"as it is\n");
        // Without a size, what a pipe holds.
        let mut client = at(backend, &place, &["connect", "--raw"]);
        let socket = listener.accept().await.unwrap();
        client.stdin().write_all(&[7; 65_536]).unwrap();
        let mut len = 0;
        while len < 65_536 {
            len += recv(&socket).await.len();
        }
        drop(socket);
        client.succeeds();
    });
    assert_eq!(Program::start(&mut tool(backend, &["connect", "--raw=0", "x"])).end().0, Some(2));
}

fn a_length_prefix_keeps_messages_apart(backend: Backend) {
    let place = Place::new();
    let server = at(backend, &place, &["listen", "--length-prefix", "--end-with-peer"]);
    until_there(&place.path);
    let text = b"\0\0\0\x04a\nb\0\0\0\0\0\0\0\0\x01c";
    let mut client = at(backend, &place, &["connect", "-l"]);
    client.stdin().write_all(text).unwrap();
    client.succeeds();
    assert_eq!(server.succeeds(), text);
    run(async {
        let listener = listens(backend, &place);
        let mut client = at(backend, &place, &["connect", "-l"]);
        let socket = listener.accept().await.unwrap();
        client.stdin().write_all(b"\0\0\0\x04abc").unwrap();
        assert_eq!(recv(&socket).await, b"");
        let (code, _, errors) = client.end();
        assert_eq!(code, Some(1));
        assert!(errors.contains("3 of 4 bytes"), "{errors}");
    });
}

fn any_separator_ends_a_message(backend: Backend) {
    for (args, text) in [
        (&["--separator", r"\0"][..], &b"one\0\0two\nlines\0"[..]),
        (&["-s", ""], b"onetwo\nlines"),
        (&["--separator", r"\r\n--\x41"], b"one\r\n--A\r\n--Atwo\nlines\r\n--A"),
        (&["--raw", "-s", r"\n"], b"one\n\ntwo\nlines\n"),
        (&["--hex", "-s", ";"], b"6f6e65;;74776f0a6c696e6573;"),
    ] {
        let place = Place::new();
        let server = at(backend, &place, &[&["listen"], args].concat());
        run(async {
            let socket = connect(backend, &place.path).await;
            for message in [&b"one"[..], b"", b"two\nlines"] {
                socket.send(message).await.unwrap();
            }
        });
        assert_eq!(server.succeeds(), text, "{args:?}");
    }
    for args in [["--separator", r"\q"], ["--length-prefix", "--separator=x"]] {
        let listen = [&["listen"], &args[..], &["x"]].concat();
        assert_eq!(Program::start(&mut tool(backend, &listen)).end().0, Some(2), "{args:?}");
    }
}

fn a_message_beyond_the_default_send_buffer_is_sent(backend: Backend) {
    let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    let by_default = run(async {
        let (socket, _peer) = Options::new().backend(backend).pair().unwrap();
        socket.max_message_size().unwrap()
    });
    // The kernel doubles what is set.
    let size = (by_default + 1).min(most.trim().parse().unwrap());
    let place = Place::new();
    let server = at(backend, &place, &["listen", "--length-prefix"]);
    until_there(&place.path);
    let mut client = at(backend, &place, &["connect", &format!("--chunk={size}")]);
    let mut stdin = client.stdin();
    let writing = std::thread::spawn(move || stdin.write_all(&vec![1; size]).unwrap());
    let output = server.succeeds();
    assert_eq!((output.len(), &output[..4]), (4 + size, &(size as u32).to_be_bytes()[..]));
    writing.join().unwrap();
    client.succeeds();
}

fn descriptors_go_with_the_message_of_their_number(backend: Backend) {
    let place = Place::new();
    let [one, two] = ["one", "two"].map(|name| place.file(name, name.as_bytes()));
    let [first, second] = [&one, &two].map(|path| format!("2:{}", path.display()));
    let mut args = vec!["connect", "--fd", one.to_str().unwrap(), "--fd-at", &first];
    args.extend(["--fd-at", &second]);
    run(async {
        let listener = listens(backend, &place);
        let mut client = at(backend, &place, &args);
        let socket = listener.accept().await.unwrap();
        client.stdin().write_all(b"1\n2\n3\n").unwrap();
        for contents in [&["one"][..], &["one", "two"], &[]] {
            let (info, _, mut ancillary) = socket
                .recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new())
                .await;
            let _ = info.unwrap();
            let found: Vec<String> = ancillary
                .drain_fds()
                .map(|fd| std::io::read_to_string(File::from(fd)).unwrap())
                .collect();
            // The file of message 1 was opened twice: each has its own offset.
            assert_eq!(found, contents);
        }
        drop(socket);
        client.succeeds();

        let mut client = at(backend, &place, &args);
        let socket = listener.accept().await.unwrap();
        client.stdin().write_all(b"the only message\n").unwrap();
        assert_eq!(recv(&socket).await, b"the only message");
        assert_eq!(recv(&socket).await, b"");
        let (code, _, errors) = client.end();
        assert_eq!(code, Some(1));
        assert!(errors.contains("no message 2"), "{errors}");
    });
    let code = |fd| Program::start(&mut tool(backend, &["connect", "--fd-at", fd, "x"])).end();
    for wrong in ["/etc/hostname", "0:/etc/hostname"] {
        assert_eq!(code(wrong).0, Some(2));
    }
    let (failed, _, errors) = code("1:/nonexistent");
    assert_eq!(failed, Some(1));
    assert!(errors.contains("cannot open /nonexistent"), "{errors}");
}

fn a_peer_that_accepts_no_descriptors_is_named(backend: Backend) {
    let place = Place::new();
    run(async {
        let options = Options::new().backend(backend).pass_rights(false);
        let listener = match options.bind(&place.path, 16) {
            Ok(listener) => listener,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
                return eprintln!("*** SKIPPED: {error}");
            }
        };
        let mut client = at(backend, &place, &["connect", "--fd", "/etc/hostname"]);
        let socket = listener.accept().await.unwrap();
        client.stdin().write_all(b"with a file\n").unwrap();
        assert_eq!(recv(&socket).await, b"");
        let (code, _, errors) = client.end();
        assert_eq!(code, Some(1));
        assert!(errors.contains("not sent, perhaps the peer accepts no descriptors"), "{errors}");
    });
}

fn files_that_came_are_saved(backend: Backend) {
    let place = Place::new();
    let saved = tempfile::tempdir().unwrap();
    let directory = saved.path().join("made");
    let save = format!("--save-fds={}", directory.display());
    for again in [false, true] {
        let server = at(backend, &place, &["listen", &save]);
        run(async {
            let socket = connect(backend, &place.path).await;
            socket.send(b"without").await.unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"a file").unwrap();
            // The offset at its end is the sender's, and stays there.
            let (pipe, _writer) = std::io::pipe().unwrap();
            let null = File::open("/dev/null").unwrap();
            let other = File::open(place.file("other", b"another")).unwrap();
            let fds = [file.try_clone().unwrap().into(), pipe.into(), null.into(), other.into()];
            let ancillary = AncillaryBuffer::from_iter(fds);
            socket.send_owned_with_ancillary(b"with".to_vec(), ancillary).await.0.unwrap();
            drop(socket);
            let (code, output, errors) = server.end();
            assert_eq!(output, b"without\nwith\n");
            assert_eq!(code, Some(i32::from(again)), "{errors}");
            for word in ["pipe pipe:[", "device /dev/null", "file "] {
                assert!(errors.contains(word), "{errors}");
            }
            assert_eq!(errors.contains("File exists"), again, "{errors}");
            assert_eq!(file.stream_position().unwrap(), 6);
        });
        let mut names: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["2.1", "2.4"]);
        assert_eq!(std::fs::read(directory.join("2.1")).unwrap(), b"a file");
        assert_eq!(std::fs::read(directory.join("2.4")).unwrap(), b"another");
    }
}

fn files_that_came_are_saved_before_the_tool_ends(backend: Backend) {
    const LONG: u64 = 32 << 20;
    for by_signal in [false, true] {
        let place = Place::new();
        let saved = tempfile::tempdir().unwrap();
        let save = format!("--save-fds={}", saved.path().display());
        let server = at(backend, &place, &["listen", "--clients=2", "--count=2", &save]);
        run(async {
            let (one, two) = (connect(backend, &place.path), connect(backend, &place.path));
            let (one, two) = tokio::join!(one, two);
            let (long, short) = (tempfile::tempfile().unwrap(), place.file("short", b"short"));
            long.set_len(LONG).unwrap();
            let fds = [long.into(), File::open(short).unwrap().into()];
            let ancillary = AncillaryBuffer::from_iter(fds);
            one.send_owned_with_ancillary(b"files".to_vec(), ancillary).await.0.unwrap();
            until_there(&saved.path().join("1.1"));
            if by_signal {
                server.signal(Signal::INT);
            } else {
                two.send(b"the last message").await.unwrap();
            }
            let (code, _, errors) = server.end();
            assert_eq!(code, Some(if by_signal { 130 } else { 0 }), "{errors}");
            assert_eq!(errors.matches("saved as").count(), 2, "{errors}");
        });
        assert_eq!(std::fs::metadata(saved.path().join("1.1")).unwrap().len(), LONG);
        assert_eq!(std::fs::read(saved.path().join("1.2")).unwrap(), b"short");
    }
}

/// `HH:MM:SS.123456`
fn is_time(text: &str) -> bool {
    let pattern = "00:00:00.000000";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(found, like)| match like {
            '0' => found.is_ascii_digit(),
            _ => found == like,
        })
}

fn direction_and_time_are_marked(backend: Backend) {
    let place = Place::new();
    let file = place.file("passed", b"");
    let client = run(async {
        let listener = listens(backend, &place);
        let mut client = at(backend, &place, &["connect", "-v", "--fd", file.to_str().unwrap()]);
        let socket = listener.accept().await.unwrap();
        client.stdin().write_all(b"a file\n").unwrap();
        assert_eq!(recv(&socket).await, b"a file");
        assert_eq!(recv(&socket).await, b"");
        socket.send(b"x").await.unwrap();
        client
    });
    let (code, _, errors) = client.end();
    assert_eq!(code, Some(0), "{errors}");
    let lines: Vec<&str> = errors
        .lines()
        .map(|line| {
            let (time, what) = line.strip_prefix("seqpacket: ").unwrap().split_at(15);
            assert!(is_time(time), "{line}");
            what
        })
        .collect();
    let sent = format!(" > 6 bytes with file {}", file.display());
    let connected = format!(" connected on {backend}");
    let expected = [&connected[..], &sent, " > end of stdin", " < 1 byte", " < end of stream"];
    assert_eq!(lines, expected);
}

fn descriptors_and_credentials_are_shown(backend: Backend) {
    let place = Place::new();
    let server = at(backend, &place, &["listen", "--credentials", "-n", "1"]);
    until_there(&place.path);
    let file = place.file("passed", b"");
    let mut client = at(backend, &place, &["connect", "--fd", file.to_str().unwrap()]);
    let id = client.0.id();
    client.stdin().write_all(b"a file\n").unwrap();
    let (code, output, errors) = server.end();
    assert_eq!((code, &output[..]), (Some(0), &b"a file\n"[..]), "{errors}");
    assert!(errors.contains(&format!("pid {id}")), "{errors}");
    assert!(errors.contains(file.to_str().unwrap()), "{errors}");
    client.succeeds();
}

fn the_sender_of_a_message_at_once_is_shown(backend: Backend) {
    let place = Place::new();
    run(async {
        let listener = listens(backend, &place);
        for _ in 0..20 {
            let client = at(backend, &place, &["connect", "--credentials", "--count=1"]);
            listener.accept().await.unwrap().send(b"greeting").await.unwrap();
            let (code, output, errors) = client.end();
            assert_eq!((code, &output[..]), (Some(0), &b"greeting\n"[..]), "{errors}");
            assert!(errors.contains(&format!("pid {}", std::process::id())), "{errors}");
        }
    });
}

fn a_signal_leaves_no_socket_file(backend: Backend) {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        for connected in [false, true] {
            let place = Place::new();
            let server = at(backend, &place, &["listen", "--keep", "--mode", "600"]);
            until_there(&place.path);
            let mode = place.path.symlink_metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let client = connected.then(|| at(backend, &place, &["connect"]));
            if connected {
                std::thread::sleep(Duration::from_millis(100));
            }
            server.signal(signal);
            let (found, _, errors) = server.end();
            assert_eq!(found, Some(code), "{errors}");
            assert!(place.is_empty());
            drop(client);
        }
    }
}

fn a_stale_file_is_replaced_when_asked(backend: Backend) {
    let place = Place::new();
    let server = at(backend, &place, &["listen"]);
    until_there(&place.path);
    server.signal(Signal::KILL);
    server.end();
    assert!(place.path.exists());
    let (code, _, errors) = at(backend, &place, &["listen"]).end();
    assert_eq!(code, Some(1));
    assert!(errors.contains("cannot listen"), "{errors}");
    let server = at(backend, &place, &["listen", "--replace"]);
    run(async { connect(backend, &place.path).await.send(b"message").await.unwrap() });
    assert_eq!(server.succeeds(), b"message\n");
    assert!(place.is_empty());
}

fn keep_takes_one_connection_after_the_other(backend: Backend) {
    let place = Place::new();
    let server = at(backend, &place, &["listen", "--keep", "--count", "3"]);
    until_there(&place.path);
    for message in ["first", "second", "third"] {
        let mut client = at(backend, &place, &["connect"]);
        client.stdin().write_all(message.as_bytes()).unwrap();
        client.succeeds();
    }
    assert_eq!(server.succeeds(), b"first\nsecond\nthird\n");
}

fn clients_at_once_are_told_apart(backend: Backend) {
    for (args, texts) in [
        (&[][..], [&b"1: first\n"[..], b"2: second\n", b"1: last\n"]),
        (&["--hex"], [b"1: 6669727374\n", b"2: 7365636f6e64\n", b"1: 6c617374\n"]),
        (
            &["--length-prefix"],
            [
                b"\0\0\0\x09\0\0\0\x01first",
                b"\0\0\0\x0a\0\0\0\x02second",
                b"\0\0\0\x08\0\0\0\x01last",
            ],
        ),
    ] {
        let place = Place::new();
        let mut server =
            at(backend, &place, &[&["listen", "--clients", "2", "-n", "3", "-v"], args].concat());
        let mut stdout = server.stdout();
        run(async {
            let one = connect(backend, &place.path).await;
            let two = connect(backend, &place.path).await;
            for (socket, message, text) in [
                (&one, &b"first"[..], texts[0]),
                (&two, b"second", texts[1]),
                (&one, b"last", texts[2]),
            ] {
                socket.send(message).await.unwrap();
                let mut found = vec![0; text.len()];
                stdout.read_exact(&mut found).unwrap();
                assert_eq!(found, text);
            }
        });
        let (code, _, errors) = server.end();
        assert_eq!(code, Some(0), "{errors}");
        let own = format!(" 2 connected: pid {}, ", std::process::id());
        assert!(errors.contains(&own), "{errors}");
        assert!(place.is_empty());
    }
}

fn a_message_of_stdin_waits_for_a_client_and_goes_to_all(backend: Backend) {
    let place = Place::new();
    let file = place.file("passed", b"content");
    let fd_at = format!("2:{}", file.display());
    let mut server = at(backend, &place, &["listen", "--clients", "9", "--fd-at", &fd_at]);
    let mut stdin = server.stdin();
    stdin.write_all(b"early\n").unwrap();
    run(async {
        let one = connect(backend, &place.path).await;
        assert_eq!(recv(&one).await, b"early");
        let two = connect(backend, &place.path).await;
        // It is accepted once its message has come.
        two.send(b"here").await.unwrap();
        let mut shown = [0; 8];
        server.0.stdout.as_mut().unwrap().read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"2: here\n");
        stdin.write_all(b"to all\n").unwrap();
        for socket in [&one, &two] {
            let (info, bytes, mut ancillary) = socket
                .recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new())
                .await;
            let _ = info.unwrap();
            assert_eq!(bytes, b"to all");
            let file = File::from(ancillary.drain_fds().next().expect("a descriptor"));
            let mut content = [0; 7];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
            assert_eq!(&content, b"content");
        }
        // One that has gone holds none up.
        drop(one);
        stdin.write_all(b"to the rest\n").unwrap();
        assert_eq!(recv(&two).await, b"to the rest");
        drop(stdin);
        assert_eq!(recv(&two).await, b"", "stdin has ended");
        let late = connect(backend, &place.path).await;
        assert_eq!(recv(&late).await, b"");
    });
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(143));
}

fn no_more_clients_at_once_than_allowed(backend: Backend) {
    let place = Place::new();
    let mut server = at(backend, &place, &["listen", "--clients", "1", "-n", "3"]);
    let mut stdout = BufReader::new(server.stdout());
    let mut line = move || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        line
    };
    run(async {
        let one = connect(backend, &place.path).await;
        let two = connect(backend, &place.path).await;
        two.send(b"waits").await.unwrap();
        one.send(b"one").await.unwrap();
        assert_eq!(line(), "1: one\n");
        one.send(b"still").await.unwrap();
        assert_eq!(line(), "1: still\n");
        drop(one);
        assert_eq!(line(), "2: waits\n");
    });
    server.succeeds();
}

fn a_closed_stderr_is_no_failure(backend: Backend) {
    let place = Place::new();
    let mut server = at(backend, &place, &["listen", "-v", "-c"]);
    until_there(&place.path);
    drop(server.0.stderr.take());
    run(async {
        let socket = connect(backend, &place.path).await;
        for _ in 0..100 {
            socket.send(b"m").await.unwrap();
        }
    });
    let mut output = Vec::new();
    server.stdout().read_to_end(&mut output).unwrap();
    assert_eq!(output, b"m\n".repeat(100));
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    let mut failing = Program::start(&mut tool(backend, &["connect", "/nonexistent/socket"]));
    drop(failing.0.stderr.take());
    assert_eq!(failing.0.wait().unwrap().code(), Some(1));
}

/// What the pipe of stdout does not hold is in the tool, or still in the socket, when the send fails.
fn a_failed_send_loses_no_received_message(backend: Backend) {
    // The pipe holds 6, and the tool 16. The socket holds any number of them.
    const MESSAGES: usize = 24;
    for reset in [false, true] {
        let place = Place::new();
        let (mut client, mut stdin) = run(async {
            let listener = listens(backend, &place);
            let mut client = at(backend, &place, &["connect", "-v"]);
            let socket = listener.accept().await.unwrap();
            let mut stdin = client.stdin();
            stdin.write_all(b"first\n").unwrap();
            socket.readable().await.unwrap();
            socket.set_send_buffer_size(1 << 20).unwrap();
            for _ in 0..MESSAGES {
                socket.send(&[b'm'; 9999]).await.unwrap();
            }
            // With a message that is not read the peer gets ECONNRESET, otherwise EPIPE.
            if !reset {
                assert_eq!(recv(&socket).await, b"first");
            }
            // A program that is being started beside this one may hold the socket open for a moment.
            socket.shutdown(std::net::Shutdown::Both).unwrap();
            (client, stdin)
        });
        stdin.write_all(b"too late\n").unwrap();
        drop(stdin);
        let mut stderr = BufReader::new(client.0.stderr.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains("not sent") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0);
        }
        let (code, output, errors) = client.end();
        assert_eq!(code, Some(1), "{errors}");
        assert_eq!(output.len(), MESSAGES * 10_000, "{errors}");
    }
}

fn a_signal_lets_received_messages_be_written(backend: Backend) {
    const LEN: usize = 9999;
    let place = Place::new();
    let mut server = at(backend, &place, &["listen", "-v"]);
    let mut stderr = BufReader::new(server.0.stderr.take().unwrap());
    let received = run(async {
        let socket = connect(backend, &place.path).await;
        // More than the pipe of stdout holds and the tool reads ahead.
        let mut sent = 0;
        while let Ok(Ok(_)) =
            tokio::time::timeout(Duration::from_millis(300), socket.send(&[b'm'; LEN])).await
        {
            sent += 1;
        }
        assert!(sent > 10);
        server.signal(Signal::INT);
        let mut received = 0;
        let mut line = String::new();
        // It still waits for stdout to be read.
        let mut output = Vec::new();
        let mut stdout = server.stdout();
        stdout.read_to_end(&mut output).unwrap();
        while stderr.read_line(&mut line).unwrap() > 0 {
            received += usize::from(line.ends_with(&format!("< {LEN} bytes\n")));
            line.clear();
        }
        assert_eq!(output.len(), received * (LEN + 1));
        assert!(received <= sent);
        received
    });
    assert!(received > 10, "{received}");
    assert_eq!(server.0.wait().unwrap().code(), Some(130));
    assert!(place.is_empty());
}

fn a_signal_ends_the_tool_although_stdout_is_full(backend: Backend) {
    // Where the tool waits: for the next message, or only for stdout.
    for until in ["< 1 byte\n", "< end of stream\n"] {
        let place = Place::new();
        let mut server = at(backend, &place, &["listen", "-v"]);
        let _stdout = server.stdout();
        let mut stderr = BufReader::new(server.0.stderr.take().unwrap());
        run(async {
            let socket = connect(backend, &place.path).await;
            socket.set_send_buffer_size(1 << 20).unwrap();
            // More than the pipe holds, and less than the tool takes.
            for _ in 0..15 {
                socket.send(&[b'm'; 9999]).await.unwrap();
            }
            socket.send(b"m").await.unwrap();
            if until.contains("end") {
                socket.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut line = String::new();
            while !line.ends_with(until) {
                line.clear();
                assert!(stderr.read_line(&mut line).unwrap() > 0);
            }
            server.signal(Signal::TERM);
            assert_eq!(server.0.wait().unwrap().code(), Some(143));
        });
        assert!(place.is_empty());
    }
}

fn a_closed_stdout_is_no_failure(backend: Backend) {
    let place = Place::new();
    let mut server = at(backend, &place, &["listen"]);
    until_there(&place.path);
    drop(server.stdout());
    run(async {
        let socket = connect(backend, &place.path).await;
        // Until the server ends.
        while socket.send(b"message").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (code, _, errors) = server.end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(place.is_empty());
    let mut doctor = Program::start(&mut tool(backend, &["doctor"]));
    drop(doctor.stdout());
    assert_eq!(doctor.end().0, Some(0));
}

fn exit_codes_say_what_went_wrong(backend: Backend) {
    let code = |args: &[&str]| Program::start(&mut tool(backend, args)).end();
    let (failed, _, errors) = code(&["connect", "/nonexistent/socket"]);
    assert_eq!(failed, Some(1));
    assert!(errors.contains("/nonexistent/socket") && errors.contains("No such file"), "{errors}");
    assert_eq!(code(&["connect"]).0, Some(2));
    assert_eq!(code(&["listen", "--chunk", "0", "x"]).0, Some(2));
    assert_eq!(code(&["frobnicate"]).0, Some(2));
    assert_eq!(code(&["listen", "--activation", "name"]).0, Some(1));
    assert_eq!(code(&["--help"]).0, Some(0));
    for more in [&[][..], &["--keep"], &["--clients=2"]] {
        let place = Place::new();
        let mut server = at(backend, &place, &[&["listen", "--hex"], more].concat());
        server.stdin().write_all(b"no hex\n").unwrap();
        run(async {
            let socket = connect(backend, &place.path).await;
            assert_eq!(recv(&socket).await, b"");
        });
        let (failed, _, errors) = server.end();
        assert_eq!(failed, Some(1));
        assert!(errors.contains("line 1"), "{errors}");
    }
}

fn the_doctor_names_the_backend(backend: Backend) {
    let text = Program::start(&mut tool(backend, &["doctor"])).succeeds();
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find(|line| line.contains("sockets run on")).expect("that line");
    assert!(line.ends_with(&backend.to_string()), "{text}");
    for word in ["Kernel", "Limits", "open files", "net.core.wmem_max", "What to change"] {
        assert!(text.contains(word), "{text}");
    }
}

fn the_doctor_names_a_variable_that_no_socket_takes(backend: Backend) {
    let mut tool = tool(backend, &["doctor"]);
    tool.env("TOKIO_SEQPACKET_SUBMISSION", "rings");
    let (code, text, _) = Program::start(&mut tool).end();
    assert_eq!(code, Some(1));
    let text = String::from_utf8(text).unwrap();
    let (_, change) = text.split_once("What to change").expect("that title");
    assert!(change.contains("TOKIO_SEQPACKET_SUBMISSION=rings is not one of"), "{text}");
    assert!(!change.contains("Nothing"), "{text}");
}

fn the_doctor_writes_json_with_stable_keys(backend: Backend) {
    use serde_json::{Value, json};
    let text = Program::start(&mut tool(backend, &["doctor", "--json"])).succeeds();
    let report: Value = serde_json::from_slice(&text).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let expected = [
        "advice",
        "backend",
        "batch_pays_from",
        "environment",
        "error",
        "features",
        "io_uring",
        "kernel",
        "limits",
        "version",
        "works",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(report["works"], json!(true));
    assert_eq!(report["error"], Value::Null);
    assert_eq!(report["backend"], json!(backend.to_string()));
    assert_eq!(keys(&report["io_uring"]), ["available", "reason"]);
    assert_eq!(keys(&report["kernel"]), ["io_uring_disabled", "machine", "release"]);
    let features = ["SO_PASSPIDFD", "SO_PASSRIGHTS", "SO_PEERGROUPS", "SO_PEERPIDFD", "SO_PEERSEC"];
    assert_eq!(keys(&report["features"]), features);
    for feature in features {
        let there = &report["features"][feature];
        assert_eq!(there["available"] == json!(true), there["reason"].is_null(), "{there}");
    }
    let limits = [
        "largest_message",
        "largest_message_settable",
        "locked_memory",
        "max_dgram_qlen",
        "open_files",
        "send_buffer",
        "somaxconn",
        "wmem_max",
    ];
    assert_eq!(keys(&report["limits"]), limits);
    assert_eq!(keys(&report["limits"]["open_files"]), ["current", "maximum"]);
    let limit = |name| report["limits"][name].as_u64().unwrap();
    assert!(limit("largest_message") < limit("send_buffer"));
    assert!(limit("largest_message") <= limit("largest_message_settable"));
    assert!(report["advice"].is_array());

    let mut tool = tool(backend, &["doctor", "--json"]);
    let (code, text, _) = Program::start(tool.env("TOKIO_SEQPACKET_SUBMISSION", "rings")).end();
    assert_eq!(code, Some(1));
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(keys(&report), expected);
    assert_eq!((&report["works"], &report["backend"]), (&json!(false), &Value::Null));
    assert!(report["error"].as_str().unwrap().contains("rings"), "{report}");
    assert_eq!(report["environment"]["TOKIO_SEQPACKET_SUBMISSION"], json!("rings"));
}

/// tokio's own set-up panics with some of these limits.
fn too_few_descriptors_are_an_error(backend: Backend) {
    let place = Place::new();
    for limit in 4..=9 {
        for args in [&["doctor"][..], &["doctor", "--json"], &["connect"]] {
            let tool = tool(backend, args);
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &limit.to_string()]);
            shell.arg(tool.get_program()).args(tool.get_args());
            if args == ["connect"] {
                shell.arg(&place.path);
            }
            let (code, output, errors) = Program::start(&mut shell).end();
            let output = String::from_utf8_lossy(&output).into_owned();
            // 127: the loader has no descriptor for a library.
            assert!(matches!(code, Some(1 | 127)), "{limit} {args:?}: {code:?} {errors}");
            assert!(!errors.contains("panicked"), "{limit} {args:?}: {errors}");
            let said = output + &errors;
            let is_named = said.contains("open files") || said.contains("EMFILE");
            assert!(is_named, "{limit} {args:?}: {said}");
        }
    }
}

/// Whatever part of io_uring is refused: what is wrong is said, and what would change it.
fn the_doctor_names_the_call_that_is_refused(backend: Backend) {
    for (call, errno) in [
        ("io_uring_setup", "EPERM"),
        ("io_uring_enter", "EPERM"),
        ("io_uring_enter", "EACCES"),
        ("io_uring_enter", "EINVAL"),
        ("io_uring_enter", "ENOMEM"),
    ] {
        // As a user without a choice of backend. On epoll, the choice is explicit.
        let chosen = if backend == Backend::Epoll { "epoll" } else { "auto" };
        let text = Program::start(
            Command::new("strace")
                .args(["-f", "-qq", "-e", "signal=none", "-o", "/dev/null"])
                .args(["-e", &format!("trace={call}")])
                .args(["-e", &format!("inject={call}:error={errno}")])
                .arg(env!("CARGO_BIN_EXE_seqpacket"))
                .args(["--backend", chosen, "doctor"]),
        )
        .succeeds();
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find(|line| line.contains("sockets run on")).expect("that line");
        assert!(line.ends_with("epoll"), "{call} {errno}: {text}");
        let (_, change) = text.split_once("What to change").expect("that title");
        assert!(change.contains(call), "{call} {errno}: {text}");
        assert!(!change.contains("Nothing") && !change.contains("--backend"), "{text}");
    }
}

fn a_short_benchmark(backend: Backend) {
    let bench = ["bench", "--seconds", "0.05", "--pairs", "1,4"];
    let text = String::from_utf8(Program::start(&mut tool(backend, &bench)).succeeds()).unwrap();
    assert!(text.contains(&backend.to_string()), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with("4 ")), "{text}");
}

fn a_short_benchmark_of_one_way(backend: Backend) {
    let bench = ["bench", "--one-way", "--seconds", "0.05"];
    let text = String::from_utf8(Program::start(&mut tool(backend, &bench)).succeeds()).unwrap();
    for calls in ["plain", "batches"] {
        let line = text.lines().find(|line| line.contains(calls)).expect("a line of figures");
        assert!(line.contains(&backend.to_string()), "{text}");
    }
    let verdict = format!("Batches on {backend} are ");
    assert!(text.lines().any(|line| line.starts_with(&verdict)), "{text}");
}

fn completions_are_scripts(backend: Backend) {
    for shell in ["bash", "zsh", "fish"] {
        let script = Program::start(&mut tool(backend, &["completions", shell])).succeeds();
        assert!(String::from_utf8(script).unwrap().contains("seqpacket"));
    }
}

/// A shell in the place of systemd: the listening socket is its descriptor 3, and it becomes the tool.
fn a_socket_passed_by_name_is_taken(backend: Backend) {
    let place = Place::new();
    let fd = run(async { OwnedFd::from(Options::new().bind(&place.path, 4).unwrap()) });
    let shell = r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control
                   exec 3<&0 < /dev/null "$0" "$@""#;
    for (name, found) in [("other", false), ("control", true)] {
        let tool = tool(backend, &["listen", "--activation", name, "-n", "1"]);
        let child = Command::new("sh")
            .args(["-c", shell])
            .arg(tool.get_program())
            .args(tool.get_args())
            .stdin(Stdio::from(fd.as_fd().try_clone_to_owned().unwrap()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if found {
            run(async { connect(backend, &place.path).await.send(b"message").await.unwrap() });
            assert_eq!(Program(child).succeeds(), b"message\n");
        } else {
            let (code, _, errors) = Program(child).end();
            assert_eq!(code, Some(1));
            assert!(errors.contains("control"), "{errors}");
        }
    }
    assert!(place.path.exists(), "only its creator removes it");
}

fn the_tool_talks_to_socat(backend: Backend) {
    let place = Place::new();
    let address = format!("UNIX-LISTEN:{},socktype=5", place.path.display());
    let _socat = Program::start(Command::new("socat").args([&address, "PIPE"]));
    until_there(&place.path);
    // It has bound, and listens a moment later.
    std::thread::sleep(Duration::from_millis(200));
    let mut client = at(backend, &place, &["connect", "-n", "1"]);
    client.stdin().write_all(b"there and back\n").unwrap();
    assert_eq!(client.succeeds(), b"there and back\n");
}

fn systemd_starts_it_with_the_first_client(backend: Backend) {
    let place = Place::new();
    let listen = format!("--listen={}", place.path.display());
    let tool = tool(backend, &["listen", "--activation", "control", "-n", "1"]);
    let mut systemd = Command::new("systemd-socket-activate");
    systemd.args(["--seqpacket", "--fdname=control", &listen]);
    let mut systemd = Program::start(systemd.arg(tool.get_program()).args(tool.get_args()));
    run(async { connect(backend, &place.path).await.send(b"wake up").await.unwrap() });
    // It becomes the tool.
    let mut output = String::new();
    systemd.stdout().read_to_string(&mut output).unwrap();
    assert_eq!(output, "wake up\n");
}
