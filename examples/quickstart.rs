//! A server and a client, two processes, on a socket in the file system.
//!
//! `cargo run --release --example quickstart [-- --seconds N]`
//!
//! The process that you start is the server. It binds its sockets, then starts itself once more as
//! the client. They exchange messages, an open file and credentials, and then measure round trips
//! on each backend that is available here, for N seconds (3, if nothing is said).

use std::error::Error;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options, UCred, UnixSeqpacket, UnixSeqpacketListener, probe};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Lengths of the messages that are sent to and fro. The limit is the sender's `SO_SNDBUF`, less 32
/// bytes: 212,960 by default.
const SIZES: [usize; 6] = [0, 1, 64, 4096, 65_536, 200_000];

/// Numbers of connections to measure with.
const CONNECTIONS: [usize; 3] = [1, 16, 128];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, done) = match arguments[..] {
        [] => ("server", server(3.0).await),
        ["--seconds", seconds] => match seconds.parse() {
            Ok(seconds) if seconds > 0.0 => ("server", server(seconds).await),
            _ => ("quickstart", Err(format!("not a number of seconds: {seconds}").into())),
        },
        // How the server starts the client.
        ["client", directory, seconds, ref backends @ ..] => {
            ("client", client(Path::new(directory), seconds, backends).await)
        }
        _ => ("quickstart", Err("usage: quickstart [--seconds N]".into())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

// ----- the server -----

/// Whatever happens, the directory with the sockets is removed and the client is killed when this
/// returns: both happen in destructors.
async fn server(seconds: f64) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let listener = UnixSeqpacketListener::bind(directory.path().join("quickstart.sock"))?;
    // With this option the kernel says of each message who sent it. Accepted sockets inherit it.
    rustix::net::sockopt::set_socket_passcred(&listener, true)?;

    println!("{}", probe());
    match std::env::var("TOKIO_SEQPACKET_BACKEND") {
        Ok(value) => println!("TOKIO_SEQPACKET_BACKEND is {value:?}"),
        Err(_) => println!("TOKIO_SEQPACKET_BACKEND is not set: the library chooses"),
    }
    println!("server: process {}, backend {}", std::process::id(), listener.backend());

    // For the measurements, one listener on each backend.
    let mut echoes = JoinSet::new();
    let mut backends = Vec::new();
    for backend in [Backend::Epoll, Backend::Uring] {
        let path = directory.path().join(format!("{backend}.sock"));
        match Options::new().backend(backend).bind(path, 128) {
            Ok(listener) => {
                echoes.spawn(echo_server(listener));
                backends.push(backend.to_string());
            }
            Err(error) => println!("{backend}: skipped: {error}"),
        }
    }

    let mut client = tokio::process::Command::new(std::env::current_exe()?)
        .arg("client")
        .arg(directory.path())
        .arg(seconds.to_string())
        .args(backends)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;

    let client_id = client.id();
    let conversation = async {
        let socket = listener.accept().await?;
        greet(&socket, client_id).await
    };
    let client_ends = async {
        let status = client.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("the client failed: {status}").into()) }
    };
    tokio::select! {
        done = async { tokio::try_join!(conversation, client_ends) } => done?,
        Some(stopped) = echoes.join_next() => return stopped?,
        _ = tokio::signal::ctrl_c() => return Err("interrupted".into()),
        () = tokio::time::sleep(Duration::from_secs_f64(seconds * 2.0 + 60.0)) => {
            return Err("the client does not end".into());
        }
    };
    println!("server: the client has ended; done");
    Ok(())
}

/// The server's part of the conversation.
async fn greet(socket: &UnixSeqpacket, client: Option<u32>) -> Result<()> {
    let peer = socket.peer_cred()?;
    println!("server: connected by {}", describe(peer));
    expect(peer.pid().map(|pid| pid as u32) == client, "the peer is the client")?;

    // Send each message back. The calls take the buffer and give it back, received bytes and all.
    let mut buffer = Vec::with_capacity(1 << 18);
    for size in SIZES {
        buffer.clear();
        let (received, bytes) = socket.recv_owned(buffer).await;
        let received = received?;
        expect(!received.truncated() && received.bytes_read() == size, "messages arrive whole")?;
        let (sent, bytes) = socket.send_owned(bytes).await;
        sent?;
        buffer = bytes;
    }

    // A message with an open file and the credentials of its sender.
    let (received, text, mut ancillary) =
        socket.recv_owned_with_ancillary(Vec::with_capacity(256), AncillaryBuffer::new()).await;
    expect(!received?.ancillary_truncated(), "ancillary data arrives whole")?;
    let sender = ancillary.credentials().ok_or("no credentials came with the message")?;
    println!(
        "server: {:?} came with {} open file, from {}",
        String::from_utf8_lossy(&text),
        ancillary.fds().len(),
        describe(sender)
    );
    let mut content = String::new();
    for fd in ancillary.drain_fds() {
        std::fs::File::from(fd).read_to_string(&mut content)?;
    }
    println!("server: the file says: {content:?}");
    expect(content.contains("written by process"), "the file is the client's")?;
    socket.send(b"done").await?;
    Ok(())
}

fn describe(credentials: UCred) -> String {
    let process = credentials.pid().map_or("unknown".into(), |pid| pid.to_string());
    format!("process {process}, user {}, group {}", credentials.uid(), credentials.gid())
}

/// Accept connections, and send back on each what arrives.
async fn echo_server(listener: UnixSeqpacketListener) -> Result<()> {
    loop {
        let socket = listener.accept().await?;
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            loop {
                match socket.recv(&mut buffer).await {
                    // An empty message would look the same. This client sends none.
                    Ok(0) => return Ok(()),
                    Ok(len) => socket.send(&buffer[..len]).await?,
                    Err(error) => return Err(error),
                };
            }
        });
    }
}

// ----- the client -----

async fn client(directory: &Path, seconds: &str, backends: &[&str]) -> Result<()> {
    let socket = UnixSeqpacket::connect(directory.join("quickstart.sock")).await?;
    println!("client: process {}, backend {}", std::process::id(), socket.backend());

    // Messages of several sizes, which the server sends back.
    let mut answer = vec![0; 1 << 18];
    for size in SIZES {
        let message: Vec<u8> = (0..size).map(|i| (i * 31 + size) as u8).collect();
        socket.send(&message).await?;
        let len = socket.recv(&mut answer).await?;
        expect(answer[..len] == message, "the answer is the message")?;
    }
    println!("client: messages of {SIZES:?} bytes came back unchanged");

    // An open file, which has no name: only its descriptor leads to it.
    let mut file = tempfile::tempfile_in(directory)?;
    write!(file, "written by process {}", std::process::id())?;
    file.rewind()?;
    let mut ancillary = AncillaryBuffer::new();
    ancillary.push_fd(file)?;
    let (sent, _, _) = socket.send_owned_with_ancillary(b"read this".to_vec(), ancillary).await;
    sent?;
    let len = socket.recv(&mut answer).await?;
    expect(&answer[..len] == b"done", "the server has read the file")?;

    measure(directory, seconds.parse()?, backends).await
}

/// Print a table of nanoseconds per round trip.
async fn measure(directory: &Path, seconds: f64, backends: &[&str]) -> Result<()> {
    const ROUNDS: usize = 3;
    let cells = (CONNECTIONS.len() * backends.len() * ROUNDS) as f64;
    let time = Duration::from_secs_f64(seconds / cells);

    println!("\nns per round trip of 64 bytes between the two processes");
    print!("connections");
    backends.iter().for_each(|backend| print!("{backend:>12}"));
    println!();
    for connections in CONNECTIONS {
        let mut total = vec![(Duration::ZERO, 0); backends.len()];
        // The backends take turns, so that noise meets all of them.
        for _ in 0..ROUNDS {
            for (backend, (elapsed, trips)) in backends.iter().zip(&mut total) {
                let (e, t) = round_trips(directory, backend, connections, time).await?;
                *elapsed += e;
                *trips += t;
            }
        }
        print!("{connections:>11}");
        for (elapsed, trips) in total {
            print!("{:>12}", elapsed.as_nanos() / trips);
        }
        println!();
    }
    println!();
    Ok(())
}

/// Round trips on so many connections at a time: how long it took, and how many they were.
async fn round_trips(
    directory: &Path,
    backend: &str,
    connections: usize,
    time: Duration,
) -> Result<(Duration, u128)> {
    let options = match backend {
        "io_uring" => Options::new().backend(Backend::Uring),
        _ => Options::new().backend(Backend::Epoll),
    };
    let mut sockets = Vec::new();
    for _ in 0..connections {
        sockets.push(options.connect(directory.join(format!("{backend}.sock"))).await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for socket in sockets {
        tasks.spawn(async move {
            let (message, mut answer) = ([7; 64], [0; 128]);
            let mut trips = 0;
            while trips == 0 || start.elapsed() < time {
                socket.send(&message).await?;
                expect(socket.recv(&mut answer).await? == message.len(), "answers come back")?;
                trips += 1;
            }
            Result::Ok(trips)
        });
    }
    let mut trips = 0;
    while let Some(task) = tasks.join_next().await {
        trips += task??;
    }
    Ok((start.elapsed(), trips))
}

fn expect(condition: bool, what: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(format!("not so: {what}").into()) }
}
