//! A channel of typed values, one value a message. Values may have descriptors in them.
//!
//! `cargo run --example typed --features postcard`

use std::io::{self, Read, Write};

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio_seqpacket::codec::{Passed, Postcard};
use tokio_seqpacket::{Framed, UnixSeqpacket};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Add(i64, i64),
    Reverse(String),
    /// The answer has the end that reads of a pipe.
    Report,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Number(i64),
    Text(String),
    Report(Passed<io::PipeReader>),
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let (client, server) = UnixSeqpacket::pair()?;
    let serving = tokio::spawn(serve(server));

    let mut client = Framed::new(client, Postcard::<Request, Answer>::new()).max_fds(1);
    for request in [Request::Add(40, 2), Request::Reverse("tekcapqes".into()), Request::Report] {
        println!("{request:?}");
        client.send(request).await?;
        match client.next().await.ok_or(io::ErrorKind::UnexpectedEof)?? {
            Answer::Number(number) => assert_eq!(number, 42),
            Answer::Text(text) => assert_eq!(text, "seqpacket"),
            Answer::Report(Passed(mut pipe)) => {
                let mut report = String::new();
                pipe.read_to_string(&mut report)?;
                println!("  {report}");
            }
        }
    }
    client.close().await?;
    serving.await?
}

async fn serve(socket: UnixSeqpacket) -> io::Result<()> {
    let mut channel = Framed::new(socket, Postcard::<Answer, Request>::new()).max_fds(1);
    while let Some(request) = channel.next().await {
        let answer = match request? {
            Request::Add(a, b) => Answer::Number(a.wrapping_add(b)),
            Request::Reverse(text) => Answer::Text(text.chars().rev().collect()),
            Request::Report => {
                let (reader, mut writer) = io::pipe()?;
                writer.write_all(b"all is well")?;
                Answer::Report(Passed(reader))
            }
        };
        channel.send(answer).await?;
    }
    Ok(())
}
