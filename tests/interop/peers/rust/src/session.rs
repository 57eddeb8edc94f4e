//! A session: one task that polls the library, and a way to ask things of it.

use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};

use crate::wire::{Both, Connection};
use crate::Result;

pub type Stream = Box<dyn Both>;

enum Request {
    Open(oneshot::Sender<Result<Stream>>),
    Close(oneshot::Sender<Result<()>>),
}

pub struct Session {
    requests: mpsc::UnboundedSender<Request>,
}

impl Session {
    pub async fn open(&self) -> Result<Stream> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Open(reply))?;
        answer.await?
    }

    pub async fn close(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Close(reply))?;
        answer.await?
    }
}

/// Starts a session with that version of the library.
pub fn start<F>(library: &str, connection: Connection, server: bool, accept: F) -> Result<Session>
where
    F: FnMut(Stream) + Send + 'static,
{
    let (sender, requests) = mpsc::unbounded_channel();
    match library {
        "0.13" => tokio::spawn(v013::drive(connection, server, accept, requests)),
        "0.14" => tokio::spawn(v014::drive(connection, server, accept, requests)),
        _ => return Err(format!("unknown library {library}").into()),
    };
    Ok(Session { requests: sender })
}

// The versions have the same names and are different types.
macro_rules! driver {
    ($version:ident, $library:ident) => {
        mod $version {
            use super::*;
            use $library::{Config, Connection as Yamux, Mode};

            pub async fn drive<F: FnMut(Stream)>(
                connection: Connection,
                server: bool,
                mut accept: F,
                mut requests: mpsc::UnboundedReceiver<Request>,
            ) {
                let mode = if server { Mode::Server } else { Mode::Client };
                let mut yamux = Yamux::new(connection, Config::default(), mode);
                let mut waiting: Option<Request> = None;
                poll_fn(|context| loop {
                    if waiting.is_none() {
                        if let Poll::Ready(Some(request)) = requests.poll_recv(context) {
                            waiting = Some(request);
                        }
                    }
                    match waiting.take() {
                        Some(Request::Open(reply)) => match yamux.poll_new_outbound(context) {
                            Poll::Ready(result) => {
                                let opened = result.map(|stream| Box::new(stream) as Stream);
                                let _ = reply.send(opened.map_err(Into::into));
                                continue;
                            }
                            Poll::Pending => waiting = Some(Request::Open(reply)),
                        },
                        Some(Request::Close(reply)) => match yamux.poll_close(context) {
                            Poll::Ready(result) => {
                                let _ = reply.send(result.map_err(Into::into));
                            }
                            Poll::Pending => waiting = Some(Request::Close(reply)),
                        },
                        None => {}
                    }
                    match yamux.poll_next_inbound(context) {
                        Poll::Ready(Some(Ok(stream))) => accept(Box::new(stream)),
                        Poll::Ready(Some(Err(error))) => {
                            println!("seen end {error}");
                            return Poll::Ready(());
                        }
                        Poll::Ready(None) => {
                            println!("seen end");
                            return Poll::Ready(());
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                })
                .await;
            }
        }
    };
}

driver!(v013, yamux013);
driver!(v014, yamux014);
