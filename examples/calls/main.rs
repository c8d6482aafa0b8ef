//! Requests and answers over one connection, in any order: see `calls.rs`, which is there to be copied.
//!
//! `cargo run --example calls --features postcard`

mod calls;

use std::io;
use std::time::Duration;

use calls::{Client, Limits, serve};
use tokio::time::sleep;
use tokio_seqpacket::UnixSeqpacket;

#[tokio::main]
async fn main() -> io::Result<()> {
    let (client, server) = UnixSeqpacket::pair()?;
    let limits = Limits { deadline: Duration::from_millis(200), ..Limits::default() };
    let serving = tokio::spawn(serve(server, limits, async |millis: u64| {
        sleep(Duration::from_millis(millis)).await;
        format!("{millis} ms later")
    }));

    let client = Client::<u64, String>::new(client, limits)?;
    let slow = client.call(60_000);
    let (first, second, third) = tokio::join!(client.call(20), client.call(1), slow);
    println!("{}, {}, and {}", first?, second?, third.unwrap_err());

    drop(client);
    serving.await?
}
