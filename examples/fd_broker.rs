//! A broker of file descriptors: clients register an open file under a name, others ask for it.
//!
//!     cargo run --release --example fd_broker
//!
//! Runs a broker and three clients in one process. A request is one message: `put NAME` with a
//! descriptor, `get NAME`, or `list`; so is an answer. The broker asks the kernel who sent each
//! message, and lets only the user who put a name replace it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Message, MessagesOptions, UnixSeqpacket, UnixSeqpacketListener};

struct Entry {
    owner: u32,
    fd: Arc<OwnedFd>,
}

type Names = Arc<Mutex<BTreeMap<String, Entry>>>;

/// What the broker answers: a text, and a descriptor perhaps.
fn answer(names: &Names, user: u32, mut request: Message) -> (String, Option<Arc<OwnedFd>>) {
    let refuse = |why: &str| (format!("error: {why}"), None);
    if request.info().truncated() || request.info().ancillary_truncated() {
        return refuse("the request was truncated");
    }
    let fds = request.take_fds();
    let Ok(text) = std::str::from_utf8(&request) else { return refuse("not UTF-8") };
    let mut names = names.lock().unwrap();
    match (text.split_once(' '), fds.len()) {
        (Some(("put", name)), 1) => {
            if names.get(name).is_some_and(|entry| entry.owner != user) {
                return refuse("the name belongs to another user");
            }
            let fd = Arc::new(fds.into_iter().next().expect("one"));
            names.insert(name.to_owned(), Entry { owner: user, fd });
            ("ok".to_owned(), None)
        }
        (Some(("get", name)), 0) => match names.get(name) {
            Some(entry) => ("ok".to_owned(), Some(entry.fd.clone())),
            None => refuse("no client has put that"),
        },
        (None, 0) if text == "list" => {
            (names.keys().map(String::as_str).collect::<Vec<_>>().join("\n"), None)
        }
        // Unexpected descriptors are closed with the message.
        _ => refuse("neither put NAME with a descriptor, nor get NAME, nor list"),
    }
}

async fn serve(socket: UnixSeqpacket, names: Names) -> io::Result<()> {
    let user = socket.peer_cred()?.uid();
    let mut requests = socket.messages(MessagesOptions::new().buffers(8).size(256))?;
    while let Some(request) = requests.next().await {
        let (text, fd) = answer(&names, user, request?);
        let mut ancillary = AncillaryBuffer::new();
        if let Some(fd) = fd {
            ancillary.push_fd(fd.try_clone()?)?;
        }
        socket.send_owned_with_ancillary(text.into_bytes(), ancillary).await.0?;
    }
    Ok(())
}

async fn ask(
    socket: &UnixSeqpacket,
    request: &str,
    fd: Option<File>,
) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut ancillary = AncillaryBuffer::new();
    if let Some(fd) = fd {
        ancillary.push_fd(fd)?;
    }
    socket.send_owned_with_ancillary(request.as_bytes().to_vec(), ancillary).await.0?;
    let (info, bytes, mut ancillary) =
        socket.recv_owned_with_ancillary(Vec::with_capacity(4096), AncillaryBuffer::new()).await;
    if info?.bytes_read() == 0 && bytes.is_empty() && request != "list" {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), ancillary.take_fds()))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("fd-broker-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let path = directory.join("socket");
    let listener = UnixSeqpacketListener::bind(&path)?;
    let names = Names::default();
    let broker = tokio::spawn(async move {
        loop {
            let socket = listener.accept().await?;
            tokio::spawn(serve(socket, names.clone()));
        }
        #[expect(unreachable_code, reason = "the type of the task")]
        io::Result::Ok(())
    });

    let writer = UnixSeqpacket::connect(&path).await?;
    let mut file = File::create_new(directory.join("notes"))?;
    file.write_all(b"written by the first client")?;
    let shared = File::open(directory.join("notes"))?;
    println!("put notes: {}", ask(&writer, "put notes", Some(shared)).await?.0);
    println!("put nothing: {}", ask(&writer, "put nothing", None).await?.0);

    let reader = UnixSeqpacket::connect(&path).await?;
    println!("list: {}", ask(&reader, "list", None).await?.0);
    let (text, fds) = ask(&reader, "get notes", None).await?;
    let mut file = File::from(fds.into_iter().next().expect("a descriptor"));
    file.rewind()?;
    let mut content = String::new();
    file.read_to_string(&mut content)?;
    println!("get notes: {text}, and the file says {content:?}");
    println!("get other: {}", ask(&reader, "get other", None).await?.0);

    broker.abort();
    std::fs::remove_dir_all(directory)
}
