//! The tool `seqpacket`, with itself, in pipes, with socat, and started by systemd.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio_seqpacket::{Backend, Options};

use crate::harness::Test;
use crate::{Place, Program, connect, recv, run, until_there, with};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = with![
        None;
        lines_go_both_ways,
        hexadecimal_goes_both_ways,
        a_file_goes_through_in_chunks,
        descriptors_and_credentials_are_shown,
        a_signal_leaves_no_socket_file,
        a_stale_file_is_replaced_when_asked,
        keep_takes_one_connection_after_the_other,
        a_closed_stdout_is_no_failure,
        exit_codes_say_what_went_wrong,
        the_doctor_names_the_backend,
        the_doctor_names_a_variable_that_no_socket_takes,
        a_short_benchmark,
        completions_are_scripts,
        a_socket_passed_by_name_is_taken,
    ];
    tests.extend(with![Some("socat"); the_tool_talks_to_socat]);
    tests.extend(with![Some("strace"); the_doctor_names_the_call_that_is_refused]);
    tests.extend(with![Some("systemd-socket-activate"); systemd_starts_it_with_the_first_client]);
    tests
}

fn tool(backend: Backend, args: &[&str]) -> Command {
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
    let place = Place::new();
    let mut server = at(backend, &place, &["listen", "--hex"]);
    server.stdin().write_all(b"no hex\n").unwrap();
    run(async {
        let socket = connect(backend, &place.path).await;
        assert_eq!(recv(&socket).await, b"");
    });
    let (failed, _, errors) = server.end();
    assert_eq!(failed, Some(1));
    assert!(errors.contains("line 1"), "{errors}");
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
