//! Python, perl, ruby, Go and socat at the other end.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options, UnixSeqpacket, UnixSeqpacketListener};

use crate::harness::Test;
use crate::{Place, Program, connect, recv, run, with};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = with![Some("python3"); python_serves, python_connects];
    tests.extend(with![Some("perl"); perl_connects]);
    tests.extend(with![Some("ruby"); ruby_connects]);
    tests.extend(with![Some("go"); go_listens, go_connects]);
    tests.extend(with![Some("socat"); socat_listens, socat_connects]);
    tests
}

/// Echoes two messages, the last of them empty; then says which credentials came, passes a file, and
/// says what was in the one that it got.
const PYTHON_TALK: &str = r#"
import array, os, socket, struct, sys, tempfile

def talk(peer):
    for expected in (b"one", b""):
        message = peer.recv(100)
        assert message == expected, message
        peer.send(message)
    # SO_PASSCRED, and space for a struct ucred.
    peer.setsockopt(socket.SOL_SOCKET, 16, 1)
    peer.send(b"ready")
    message, ancillary, flags, _ = peer.recvmsg(100, 1000)
    assert message == b"credentials" and not flags & socket.MSG_CTRUNC
    pid, uid, gid = struct.unpack("3i", [data for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, 2)][0])
    peer.setsockopt(socket.SOL_SOCKET, 16, 0)
    peer.send(b"%d %d %d" % (pid, uid, gid))
    with tempfile.TemporaryFile() as file:
        file.write(b"from python")
        file.flush()
        file.seek(0)
        peer.sendmsg([b"a ", b"file"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
            array.array("i", [file.fileno()]))])
    message, fds, flags, _ = socket.recv_fds(peer, 100, 4)
    assert message == b"two files" and len(fds) == 2, (message, fds)
    for fd in fds:
        peer.send(os.read(fd, 100))
    assert peer.recv(100) == b""

here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
"#;

fn python(rest: &str, path: &Path) -> Program {
    let script = format!("{PYTHON_TALK}{rest}");
    Program::start(Command::new("python3").arg("-c").arg(script).arg(path))
}

/// The other side of that script.
async fn talk_to_python(socket: UnixSeqpacket, id: u32) {
    for message in [&b"one"[..], b""] {
        socket.send(message).await.unwrap();
        assert_eq!(recv(&socket).await, message);
    }
    assert_eq!(recv(&socket).await, b"ready");
    socket.set_pass_credentials(true).unwrap();
    socket.send(b"credentials").await.unwrap();
    let (info, bytes, ancillary) =
        socket.recv_owned_with_ancillary(Vec::with_capacity(100), AncillaryBuffer::new()).await;
    let _ = info.unwrap();
    let own = format!(
        "{} {} {}",
        std::process::id(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    assert_eq!(String::from_utf8(bytes).unwrap(), own);
    assert_eq!(ancillary.credentials().unwrap().pid(), Some(id as i32));
    socket.set_pass_credentials(false).unwrap();
    assert_eq!(socket.peer_cred().unwrap().pid(), Some(id as i32));

    let (info, bytes, mut ancillary) =
        socket.recv_owned_with_ancillary(Vec::with_capacity(100), ancillary).await;
    assert!(!info.unwrap().ancillary_truncated());
    assert_eq!(bytes, b"a file");
    let mut text = String::new();
    let fd = ancillary.drain_fds().next().expect("a descriptor");
    File::from(fd).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from python");

    let place = Place::new();
    let files = ["first", "second"]
        .map(|text| OwnedFd::from(File::open(place.file(text, text.as_bytes())).unwrap()));
    let ancillary = files.into_iter().collect();
    socket.send_owned_with_ancillary(b"two files".to_vec(), ancillary).await.0.unwrap();
    assert_eq!(recv(&socket).await, b"first");
    assert_eq!(recv(&socket).await, b"second");
}

fn python_serves(backend: Backend) {
    let place = Place::new();
    let server =
        python("here.bind(sys.argv[1])\nhere.listen(1)\ntalk(here.accept()[0])\n", &place.path);
    let id = server.0.id();
    run(async { talk_to_python(connect(backend, &place.path).await, id).await });
    server.succeeds();
}

fn listen(backend: Backend, place: &Place) -> UnixSeqpacketListener {
    Options::new().backend(backend).bind(&place.path, 4).unwrap()
}

fn python_connects(backend: Backend) {
    let place = Place::new();
    let client = run(async {
        let listener = listen(backend, &place);
        let client = python("here.connect(sys.argv[1])\ntalk(here)\n", &place.path);
        let id = client.0.id();
        talk_to_python(listener.accept().await.unwrap(), id).await;
        client
    });
    client.succeeds();
}

/// A client that sends "question" and an empty message, and prints the answer with its length.
fn asks(backend: Backend, command: &mut Command) {
    let place = Place::new();
    let client = run(async {
        let listener = listen(backend, &place);
        let client = Program::start(command.arg(&place.path));
        let socket = listener.accept().await.unwrap();
        assert_eq!(recv(&socket).await, b"question");
        let (info, _) = socket.recv_owned(Vec::with_capacity(8)).await;
        assert_eq!(info.unwrap().message_len(), 0);
        socket.send(b"answer").await.unwrap();
        // It may have gone by then.
        let _ = socket.send(b"not read with it").await;
        client
    });
    assert_eq!(String::from_utf8(client.succeeds()).unwrap(), "6 answer\n");
}

fn perl_connects(backend: Backend) {
    asks(
        backend,
        Command::new("perl").args([
            "-e",
            r#"use Socket; socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die $!;
               connect($s, sockaddr_un($ARGV[0])) or die $!;
               defined send($s, $_, 0) or die $! for "question", "";
               defined recv($s, my $answer, 100, 0) or die $!;
               print length($answer), " $answer\n";"#,
        ]),
    );
}

fn ruby_connects(backend: Backend) {
    asks(
        backend,
        Command::new("ruby").args([
            "-rsocket",
            "-e",
            r#"s = Socket.new(:UNIX, :SEQPACKET, 0); s.connect(Socket.sockaddr_un(ARGV[0]))
               s.send("question", 0); s.send("", 0)
               answer = s.recv(100); puts [answer.bytesize, answer].join(" ")"#,
        ]),
    );
}

/// `talk.go`, for one of its two parts. It is compiled once, with nothing but Go's own library.
fn go(part: &str, path: &Path) -> Program {
    const BUILT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
    static BUILDING: LazyLock<()> = LazyLock::new(|| {
        let mut go = Command::new("go");
        go.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop"));
        go.env("GOCACHE", format!("{BUILT}/cache"));
        go.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOTOOLCHAIN", "local")]);
        let building = go.args(["build", "-o", &format!("{BUILT}/talk"), "talk.go"]);
        Program::start(building).succeeds();
    });
    LazyLock::force(&BUILDING);
    Program::start(Command::new(format!("{BUILT}/talk")).arg(part).arg(path))
}

/// The other side of that program.
async fn talk_to_go(socket: UnixSeqpacket) {
    for message in [vec![1; 3], vec![2; 70_000], vec![3]] {
        socket.send(&message).await.unwrap();
        assert_eq!(recv(&socket).await, message);
    }
    let mut begin = [0; 10];
    assert_eq!(socket.recv(&mut begin).await.unwrap(), 10);
    assert_eq!(&begin, b"now longer");
    socket.send(b"also longer").await.unwrap();
    socket.send(b" the next").await.unwrap();
    assert_eq!(recv(&socket).await, b"also  the next");

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"its content").unwrap();
    file.rewind().unwrap();
    let passed = std::iter::once(OwnedFd::from(file)).collect();
    socket.send_owned_with_ancillary(b"a file: ".to_vec(), passed).await.0.unwrap();
    let (info, bytes, mut ancillary) =
        socket.recv_owned_with_ancillary(Vec::with_capacity(100), AncillaryBuffer::new()).await;
    assert!(!info.unwrap().ancillary_truncated());
    assert_eq!(bytes, b"a file: its content");
    let mut back = File::from(ancillary.drain_fds().next().expect("a descriptor"));
    let mut text = String::new();
    back.rewind().unwrap();
    back.read_to_string(&mut text).unwrap();
    assert_eq!(text, "its content");

    assert_eq!(recv(&socket).await, b"", "Go has shut down writing");
    socket.send(b"still heard").await.unwrap();
}

fn go_listens(backend: Backend) {
    let place = Place::new();
    let server = go("listen", &place.path);
    run(async { talk_to_go(connect(backend, &place.path).await).await });
    assert_eq!(server.succeeds(), b"still heard\n");
    assert!(place.is_empty());
}

fn go_connects(backend: Backend) {
    let place = Place::new();
    let client = run(async {
        let listener = listen(backend, &place);
        let client = go("connect", &place.path);
        talk_to_go(listener.accept().await.unwrap()).await;
        client
    });
    assert_eq!(client.succeeds(), b"still heard\n");
}

/// `PIPE` sends back what it reads.
fn socat_listens(backend: Backend) {
    let place = Place::new();
    let address = format!("UNIX-LISTEN:{},socktype=5", place.path.display());
    let mut socat = Program::start(Command::new("socat").args([&address, "PIPE"]));
    run(async {
        let socket = connect(backend, &place.path).await;
        for message in ["one", "another, longer"] {
            socket.send(message.as_bytes()).await.unwrap();
            assert_eq!(recv(&socket).await, message.as_bytes());
        }
    });
    drop(socat.stdin());
}

fn socat_connects(backend: Backend) {
    let place = Place::new();
    let socat = run(async {
        let listener = listen(backend, &place);
        let address = format!("UNIX-CONNECT:{},socktype=5", place.path.display());
        let mut socat = Program::start(Command::new("socat").args(["-t5", "-", &address]));
        let socket = listener.accept().await.unwrap();
        let mut stdin = socat.stdin();
        stdin.write_all(b"from stdin").unwrap();
        assert_eq!(recv(&socket).await, b"from stdin");
        socket.send(b"to stdout").await.unwrap();
        drop(stdin);
        assert_eq!(recv(&socket).await, b"", "socat shuts down writing");
        socat
    });
    assert_eq!(socat.succeeds(), b"to stdout");
}
