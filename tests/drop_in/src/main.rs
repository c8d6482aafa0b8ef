//! A store of open files: `put NAME` with a descriptor keeps it, `get NAME` passes it back. Written for
//! tokio-seqpacket 0.8, its idioms included (`&mut` where none is needed, polling by hand).

use std::collections::HashMap;
use std::fs::File;
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio_seqpacket::ancillary::{
    AncillaryMessage, AncillaryMessageReader, AncillaryMessageWriter, OwnedAncillaryMessage,
};
use tokio_seqpacket::{UCred, UnixSeqpacket, UnixSeqpacketListener};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Store = Arc<Mutex<HashMap<String, Arc<OwnedFd>>>>;

async fn serve(mut listener: UnixSeqpacketListener) -> Result<(), Error> {
    let store = Store::default();
    loop {
        let socket = listener.accept().await?;
        let peer: UCred = socket.peer_cred()?;
        println!("a client: uid {}, pid {:?}", peer.uid(), peer.pid());
        tokio::spawn(client(socket, store.clone()));
    }
}

async fn client(mut socket: UnixSeqpacket, store: Store) -> Result<(), Error> {
    loop {
        let (mut bytes, mut control) = ([0; 256], [0; 64]);
        let (len, ancillary) = socket
            .recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut control)
            .await?;
        if len == 0 {
            return Ok(());
        }
        let request = std::str::from_utf8(&bytes[..len])?;
        match request.split_once(' ') {
            Some(("put", name)) => put(&store, name, ancillary),
            Some(("get", name)) => get(&mut socket, &store, name).await?,
            _ => drop(socket.send(b"what?").await?),
        }
    }
}

fn put(store: &Store, name: &str, ancillary: AncillaryMessageReader) {
    for message in ancillary.messages() {
        match message {
            AncillaryMessage::FileDescriptors(fds) => println!("{} for {name}", fds.count()),
            AncillaryMessage::Credentials(_) | AncillaryMessage::Other(_) => {}
        }
    }
    for message in ancillary.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
            for fd in fds {
                store.lock().unwrap().insert(name.to_string(), Arc::new(fd));
            }
        }
    }
}

async fn get(socket: &mut UnixSeqpacket, store: &Store, name: &str) -> Result<(), Error> {
    let found = store.lock().unwrap().get(name).cloned();
    let Some(fd) = found else {
        socket.send(b"none").await?;
        return Ok(());
    };
    let mut control = [0; 64];
    let mut ancillary = AncillaryMessageWriter::new(&mut control);
    ancillary.add_fds(&[fd.as_fd()])?;
    socket.send_vectored_with_ancillary(&[IoSlice::new(b"found")], &mut ancillary).await?;
    Ok(())
}

async fn ask(path: &Path) -> Result<(), Error> {
    let socket = UnixSeqpacket::connect(path).await?;
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(
        path.with_extension("file"),
    )?;
    file.write_all(b"kept open")?;
    std::fs::remove_file(path.with_extension("file"))?;

    let mut control = [0; 64];
    let mut ancillary = AncillaryMessageWriter::new(&mut control);
    ancillary.add_fds(&[file.as_fd()])?;
    socket.send_vectored_with_ancillary(&[IoSlice::new(b"put "), IoSlice::new(b"it")], &mut ancillary).await?;
    drop(file);

    poll_fn(|cx| socket.poll_send(cx, b"get it")).await?;
    let (mut bytes, mut control) = ([0; 16], [0; 64]);
    let (len, ancillary) = poll_fn(|cx| {
        // What tokio-seqpacket lends for one poll is returned by it.
        socket
            .poll_recv_vectored_with_ancillary(cx, &mut [IoSliceMut::new(&mut bytes)], &mut control)
            .map_ok(|(len, ancillary)| {
                let fds = ancillary.into_messages().find_map(|message| match message {
                    OwnedAncillaryMessage::FileDescriptors(mut fds) => fds.next(),
                    _ => None,
                });
                (len, fds)
            })
    })
    .await?;
    assert_eq!(&bytes[..len], b"found");
    let mut file = File::from(ancillary.ok_or("no descriptor")?);
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    assert_eq!(text, "kept open");

    let (reader, writer) = socket.split();
    writer.send(b"get nothing").await?;
    let len = reader.recv(&mut bytes).await?;
    assert_eq!(&bytes[..len], b"none");
    socket.shutdown(std::net::Shutdown::Both)?;
    println!("{text}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let path = std::env::temp_dir().join(format!("moved-{}.sock", std::process::id()));
    let server = tokio::spawn(serve(UnixSeqpacketListener::bind(&path)?));
    let asked = ask(&path).await;
    server.abort();
    std::fs::remove_file(&path)?;
    asked
}
