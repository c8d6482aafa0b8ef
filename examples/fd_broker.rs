//! A broker of file descriptors: clients put an open file under a name, others get it.
//!
//!     cargo run --release --example fd_broker --features postcard
//!
//! Runs a broker and two clients in one process. Requests and replies are values with descriptors in them. The broker asks the
//! kernel which user a client is, and lets only the user who put a name replace it. Each user has a limited number of names, since
//! each of them holds a descriptor.

#[path = "calls/calls.rs"]
mod calls;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use calls::{Client, Limits, serve};
use serde::{Deserialize, Serialize};
use tokio_seqpacket::{Options, SocketAddr, codec::Passed};

#[derive(Serialize, Deserialize)]
enum Request {
    Put(String, Passed<OwnedFd>),
    Get(String),
}

/// What is under the name, or was until it was replaced.
type Reply = Result<Option<Passed<Arc<OwnedFd>>>, String>;

/// The user who has put each name, and the descriptor.
type Names = Mutex<HashMap<String, (u32, Arc<OwnedFd>)>>;

/// The most names of a user.
const NAMES_PER_USER: usize = 64;

fn reply(names: &Names, user: u32, request: Request) -> Reply {
    let mut names = names.lock().unwrap();
    match request {
        Request::Put(name, Passed(fd)) => match names.get(&name) {
            Some((owner, _)) if *owner != user => Err("the name is another user's".into()),
            None if names.values().filter(|(owner, _)| *owner == user).count()
                >= NAMES_PER_USER =>
            {
                Err(format!("the user has {NAMES_PER_USER} names already"))
            }
            _ => Ok(names.insert(name, (user, fd.into())).map(|(_, old)| Passed(old))),
        },
        Request::Get(name) => Ok(names.get(&name).map(|(_, fd)| Passed(fd.clone()))),
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    let address = listener.local_socket_addr()?;
    let names = Arc::<Names>::default();
    tokio::spawn(async move {
        // Not `listener.accept()`, which fails while no descriptor is free.
        let mut incoming = listener.incoming().expect("a timer can be made");
        while let Ok(socket) = incoming.accept().await {
            let (user, names) = (socket.peer_cred().expect("connected").uid(), names.clone());
            let answer = move |request| std::future::ready(reply(&names, user, request));
            tokio::spawn(serve(socket, Limits::default(), answer));
        }
    });

    let writer = Client::new(Options::new().connect_addr(&address).await?, Limits::default())?;
    let file = Passed(File::open("/proc/self/comm")?.into());
    let replaced: Reply = writer.call(Request::Put("comm".into(), file)).await?;
    println!("put comm: {replaced:?}");

    let reader = Client::new(Options::new().connect_addr(&address).await?, Limits::default())?;
    let other: Reply = reader.call(Request::Get("other".into())).await?;
    println!("get other: {other:?}");
    let comm: Reply = reader.call(Request::Get("comm".into())).await?;
    let Passed(fd) = comm.unwrap().expect("the writer has put it");
    println!("get comm: {:?}", io::read_to_string(File::from(Arc::try_unwrap(fd).unwrap()))?);
    Ok(())
}
