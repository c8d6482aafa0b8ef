//! What a service manager passes. The service is this binary again, with the body of its test.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;
use tokio_seqpacket::{Activation, Backend, Options};

use crate::harness::Test;
use crate::{Place, Program, connect, recv, run, with};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests =
        with![Some("systemd-socket-activate"); a_passed_listener_is_taken_and_not_bound];
    tests.extend(with![Some("bash"); a_listener_a_connection_and_memory_are_passed_together]);
    tests
}

/// Set for the service: the path that it would bind to.
const SERVICE: &str = "SEQPACKET_TEST_SERVICE";

fn service() -> Option<PathBuf> {
    std::env::var_os(SERVICE).map(PathBuf::from)
}

/// The variables by which this binary runs that test's body as its service.
fn variables(backend: Backend, test: &str, path: &Place) -> [(&'static str, String); 2] {
    let path = path.path.to_str().unwrap().to_owned();
    [("SEQPACKET_TEST", format!("{backend}::{test}")), (SERVICE, path)]
}

fn a_passed_listener_is_taken_and_not_bound(backend: Backend) {
    if let Some(unused) = service() {
        return run(async {
            let mut passed = Activation::from_env().unwrap().expect("a listener");
            let options = Options::new().backend(backend).mode(0o600);
            let listener =
                options.activated_or_bind(Some(&mut passed), "control", &unused, 8).unwrap();
            assert!(!unused.exists());
            assert_eq!(listener.backend(), backend);
            let socket = listener.accept().await.unwrap();
            socket.send(&recv(&socket).await).await.unwrap();
        });
    }
    let (place, unused) = (Place::new(), Place::new());
    let name = "a_passed_listener_is_taken_and_not_bound";
    let mut systemd = Command::new("systemd-socket-activate");
    // It passes no other variables on.
    for (name, value) in variables(backend, name, &unused) {
        systemd.args(["-E", &format!("{name}={value}")]);
    }
    systemd.args(["--seqpacket", "--fdname=control", "--listen"]).arg(&place.path);
    let systemd = Program::start(systemd.arg(std::env::current_exe().unwrap()));
    run(async {
        let client = connect(backend, &place.path).await;
        client.send(b"wake up").await.unwrap();
        assert_eq!(recv(&client).await, b"wake up");
    });
    systemd.succeeds();
}

fn a_listener_a_connection_and_memory_are_passed_together(backend: Backend) {
    if let Some(unused) = service() {
        return run(async {
            let mut passed = Activation::from_env().unwrap().expect("descriptors");
            assert!(passed.names().eq(["state", "connection", "listener"]));
            let options = Options::new().backend(backend);
            // Nothing is bound where the names differ.
            let refused = options.activated_or_bind(Some(&mut passed), "other", &unused, 8);
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotFound);
            assert!(refused.to_string().contains(r#"["state", "connection", "listener"]"#));
            assert!(!unused.exists());

            let mut state = String::new();
            let memory = passed.take("state").unwrap();
            File::from(memory).read_to_string(&mut state).unwrap();
            assert_eq!(state, "state");
            let connection = options.socket_from_fd(passed.take("connection").unwrap()).unwrap();
            connection.send(&recv(&connection).await).await.unwrap();
            let listener = options.activated_or_bind(Some(&mut passed), "listener", &unused, 8);
            let socket = listener.unwrap().accept().await.unwrap();
            socket.send(&recv(&socket).await).await.unwrap();
        });
    }
    let (place, unused) = (Place::new(), Place::new());
    run(async {
        let listener = Options::new().bind(&place.path, 8).unwrap();
        let (client, served) = Options::new().backend(backend).pair().unwrap();
        // Before the service runs.
        client.send(b"queued").await.unwrap();
        let other = connect(backend, &place.path).await;
        other.send(b"in the backlog").await.unwrap();
        let mut memory = File::from(memfd_create("state", MemfdFlags::CLOEXEC).unwrap());
        memory.write_all(b"state").unwrap();
        memory.rewind().unwrap();

        let name = "a_listener_a_connection_and_memory_are_passed_together";
        let fds = [memory.as_fd(), served.as_fd(), listener.as_fd()].map(inheritable);
        let script = r#"exec 3<&"$1" 4<&"$2" 5<&"$3"; LISTEN_PID=$$ exec "$0""#;
        let mut service = Command::new("bash");
        service.args(["-c", script]).arg(std::env::current_exe().unwrap());
        service.args(fds.iter().map(|fd| fd.as_raw_fd().to_string()));
        service.envs(variables(backend, name, &unused));
        service.env("LISTEN_FDS", "3").env("LISTEN_FDNAMES", "state:connection:listener");
        let service = Program::start(&mut service);
        drop((fds, listener, served));
        assert_eq!(recv(&client).await, b"queued");
        assert_eq!(recv(&other).await, b"in the backlog");
        service.succeeds();
    });
}

/// A duplicate that child processes inherit, away from the numbers that it gets in one.
fn inheritable(fd: BorrowedFd<'_>) -> OwnedFd {
    let fd = rustix::io::fcntl_dupfd_cloexec(fd, 100).unwrap();
    rustix::io::fcntl_setfd(&fd, FdFlags::empty()).unwrap();
    fd
}
