//! A service that restarts under its clients without losing a message.
//!
//! When it ends, it gives its listener and its connections to the fd store of the service manager. The
//! next process takes them over with all that lies unread in them. Clients notice a pause.
//!
//! Under systemd, as `restart.service`; then `systemctl restart restart`:
//!
//! ```ini
//! [Service]
//! Type=notify
//! ExecStart=/usr/local/bin/restart serve /run/restart.sock
//! FileDescriptorStoreMax=1024
//! ```
//!
//! `cargo run --example restart` plays the manager itself, and the clients: it restarts the service
//! three times, and checks that each client gets each answer, once and in order. That takes bash.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use sd_notify::NotifyState;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_seqpacket::{Activation, Options, UnixSeqpacket};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The names of the descriptors in the store.
const LISTENER: &str = "listener";
const CONNECTION: &str = "connection";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => tokio::time::timeout(PATIENCE, play_the_manager()).await?,
        (Some(word), Some(path)) if word == "serve" => serve(path.as_ref()).await,
        _ => Err("usage: restart [serve PATH]".into()),
    }
}

// ----- The service -----

async fn serve(path: &Path) -> Result<()> {
    // First, so that no signal ends the process before its descriptors are stored.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut passed = Activation::from_env()?;
    let options = Options::new().mode(0o600).replace_stale(true);
    let listener = options.activated_or_bind(passed.as_mut(), LISTENER, path, 128)?;

    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    while let Some(fd) = passed.as_mut().and_then(|passed| passed.take(CONNECTION)) {
        connections.spawn(answer(options.socket_from_fd(fd)?, stopping.clone()));
    }
    // The store keeps what it has passed. A connection in it would stay open after this process has
    // closed it.
    for name in [LISTENER, CONNECTION] {
        sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
    }
    sd_notify::notify(&[NotifyState::Ready])?;

    let mut incoming = listener.incoming()?;
    loop {
        tokio::select! {
            socket = incoming.accept() => {
                connections.spawn(answer(socket?, stopping.clone()));
            }
            Some(ended) = connections.join_next() => store_connection(ended?)?,
            _ = terminate.recv() => break,
        }
    }

    drop(incoming);
    stop.send_replace(true);
    while let Some(ended) = connections.join_next().await {
        store_connection(ended?)?;
    }
    // Its file stays, and so do the connections that were not accepted.
    store(LISTENER, listener.into())?;
    until_stored()
}

/// Answers each message, until the client ends. Returns the connection if the service ends first.
async fn answer(
    mut socket: UnixSeqpacket,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<Option<OwnedFd>> {
    let mut question = [0; 64];
    loop {
        let len = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            len = socket.recv(&mut question) => len?,
        };
        if len == 0 {
            return Ok(None);
        }
        reply(&socket, &question[..len]).await?;
    }
    // A message that the dropped receive has already taken from the kernel's queue is left in the
    // socket, which then does not give its descriptor away.
    loop {
        match socket.try_into_fd() {
            Ok(fd) => return Ok(Some(fd)),
            Err(left) => socket = left,
        }
        match socket.try_recv(&mut question) {
            Ok(0) => return Ok(None),
            Ok(len) => reply(&socket, &question[..len]).await?,
            // The receive is still queued. It is complete after the runtime has run for a moment.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The number in the question, and the process that answers.
async fn reply(socket: &UnixSeqpacket, question: &[u8]) -> io::Result<()> {
    let answer = [question, b" ", std::process::id().to_string().as_bytes()].concat();
    socket.send(&answer).await.map(drop)
}

fn store_connection(ended: io::Result<Option<OwnedFd>>) -> io::Result<()> {
    match ended {
        Ok(Some(fd)) => store(CONNECTION, fd),
        Ok(None) => Ok(()),
        Err(error) => {
            eprintln!("a connection failed: {error}");
            Ok(())
        }
    }
}

fn store(name: &str, fd: OwnedFd) -> io::Result<()> {
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        // Else systemd closes a connection whose client has gone, with its last messages unread.
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&state, &[fd.as_fd()])
}

/// Waits until the manager has taken all notifications: it closes the pipe then (`sd_notify_barrier(3)`).
fn until_stored() -> Result<()> {
    let (mut reader, writer) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[writer.as_fd()])?;
    drop(writer);
    match reader.read(&mut [0])? {
        0 => Ok(()),
        _ => Err("the manager has written to the barrier".into()),
    }
}

// ----- The manager, as far as it goes -----

/// How often the service is restarted.
const RESTARTS: usize = 3;
/// How many clients there are at first. One more connects while the service is down, at each restart.
const CLIENTS: usize = 3;
/// How many answers each client awaits from each process of the service.
const ANSWERS: u64 = 500;
/// How many questions of a client may be on their way.
const AHEAD: u64 = 8;
/// How long all of it may take. A lost message would be awaited without end.
const PATIENCE: Duration = Duration::from_secs(60);

async fn play_the_manager() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut manager = Manager::new(directory.path())?;
    let (enough, is_enough) = watch::channel(false);
    let mut clients = JoinSet::new();
    let mut views = Vec::new();
    let enter = |clients: &mut JoinSet<_>, views: &mut Vec<_>| {
        let (view, seen) = watch::channel(Seen::default());
        views.push(seen);
        clients.spawn(client(manager_path(directory.path()), view, is_enough.clone()));
    };

    let mut service = manager.start().await?;
    for _ in 0..CLIENTS {
        enter(&mut clients, &mut views);
    }
    for restart in 0..=RESTARTS {
        let process = service.id().ok_or("the service has ended")?;
        for seen in &mut views {
            seen.wait_for(|seen| seen.process == process && seen.answers >= ANSWERS).await?;
        }
        if restart == RESTARTS {
            break;
        }
        manager.stop(service).await?;
        assert_eq!(manager.count(CONNECTION), views.len());
        // It waits in the listener's queue, which no process serves.
        enter(&mut clients, &mut views);
        service = manager.start().await?;
    }
    enough.send_replace(true);
    let mut questions = 0;
    while let Some(asked) = clients.join_next().await {
        questions += asked??;
    }
    manager.stop(service).await?;
    println!(
        "{RESTARTS} restarts under {} clients: {questions} questions, each answered once and in order",
        views.len()
    );
    Ok(())
}

fn manager_path(directory: &Path) -> PathBuf {
    directory.join("service.sock")
}

/// What a client has seen of the process that answers now.
#[derive(Debug, Default)]
struct Seen {
    process: u32,
    answers: u64,
}

/// Asks with consecutive numbers, several ahead of the answers. Returns how many were answered.
async fn client(
    path: PathBuf,
    view: watch::Sender<Seen>,
    enough: watch::Receiver<bool>,
) -> Result<u64> {
    let socket = UnixSeqpacket::connect(path).await?;
    let (mut asked, mut answered) = (0_u64, 0_u64);
    let mut answer = [0; 64];
    loop {
        let is_enough = *enough.borrow();
        while !is_enough && asked < answered + AHEAD {
            socket.send(asked.to_string().as_bytes()).await?;
            asked += 1;
        }
        if answered == asked {
            return Ok(answered);
        }
        let len = socket.recv(&mut answer).await?;
        let text = std::str::from_utf8(&answer[..len])?;
        let (number, process) = text.split_once(' ').ok_or("the connection was closed")?;
        assert_eq!(number.parse::<u64>()?, answered, "lost, doubled or out of order");
        answered += 1;
        let process = process.parse()?;
        view.send_modify(|seen| {
            let before = if seen.process == process { seen.answers } else { 0 };
            *seen = Seen { process, answers: before + 1 };
        });
    }
}

struct Manager {
    path: PathBuf,
    notify: PathBuf,
    notifications: mpsc::Receiver<Notification>,
    store: Vec<(String, OwnedFd)>,
}

struct Notification {
    values: BTreeMap<String, String>,
    fds: Vec<OwnedFd>,
}

impl Manager {
    fn new(directory: &Path) -> Result<Self> {
        let notify = directory.join("notify");
        let socket = UnixDatagram::bind(&notify)?;
        let (tx, notifications) = mpsc::channel(16);
        // It ends with the manager, which has no runtime of its own to wait for it.
        std::thread::spawn(move || {
            while let Ok(notification) = receive(&socket) {
                if tx.blocking_send(notification).is_err() {
                    break;
                }
            }
        });
        Ok(Self { path: manager_path(directory), notify, notifications, store: Vec::new() })
    }

    /// Starts the service with all that is stored, and waits until it is ready.
    async fn start(&mut self) -> Result<Child> {
        // Away from the numbers that they get, and open in the child.
        let fds = self.store.iter().map(|(_, fd)| {
            let fd = rustix::io::fcntl_dupfd_cloexec(fd, 100)?;
            rustix::io::fcntl_setfd(&fd, FdFlags::empty()).map(|()| fd)
        });
        let fds = fds.collect::<std::result::Result<Vec<_>, _>>()?;
        let names: Vec<_> = self.store.iter().map(|(name, _)| name.as_str()).collect();
        let script = r#"
            program=$1 path=$2 to=3
            shift 2
            for from; do
                eval "exec $to<&$from $from<&-"
                to=$((to + 1))
            done
            LISTEN_PID=$$ exec "$program" serve "$path""#;
        let mut service = Command::new("bash")
            .args(["-c", script, "restart"])
            .args([&std::env::current_exe()?, &self.path])
            .args(fds.iter().map(|fd| fd.as_raw_fd().to_string()))
            .env("NOTIFY_SOCKET", &self.notify)
            .env("LISTEN_FDS", fds.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .kill_on_drop(true)
            .spawn()?;
        loop {
            tokio::select! {
                Some(notification) = self.notifications.recv() => {
                    if self.take(notification) {
                        return Ok(service);
                    }
                }
                status = service.wait() => return Err(format!("not started: {}", status?).into()),
            }
        }
    }

    /// Ends the service. It stores descriptors meanwhile.
    async fn stop(&mut self, mut service: Child) -> Result<()> {
        let process = service.id().and_then(|id| Pid::from_raw(id as i32));
        kill_process(process.ok_or("the service has ended")?, Signal::TERM)?;
        loop {
            tokio::select! {
                // The barrier makes the service end last.
                biased;
                Some(notification) = self.notifications.recv() => drop(self.take(notification)),
                status = service.wait() => match status? {
                    status if status.success() => return Ok(()),
                    status => return Err(format!("the service has failed: {status}").into()),
                },
            }
        }
    }

    /// Does what a notification asks for. Returns whether the service is ready.
    fn take(&mut self, Notification { values, fds }: Notification) -> bool {
        let is_set = |key| values.get(key).is_some_and(|value| value == "1");
        let name = values.get("FDNAME").map_or("stored", String::as_str);
        if is_set("FDSTORE") {
            self.store.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
        } else if is_set("FDSTOREREMOVE") {
            self.store.retain(|(stored, _)| stored != name);
        }
        // The descriptor of a BARRIER is closed here.
        is_set("READY")
    }

    fn count(&self, name: &str) -> usize {
        self.store.iter().filter(|(stored, _)| stored == name).count()
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<Notification> {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let len = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)?.bytes;
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let lines = String::from_utf8_lossy(&text[..len]).into_owned();
    let values = lines.lines().filter_map(|line| line.split_once('='));
    let values = values.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Ok(Notification { values, fds: fds.collect() })
}
