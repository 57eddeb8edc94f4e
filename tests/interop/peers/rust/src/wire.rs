//! The command line, and the connection that it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use futures::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::compat::TokioAsyncReadCompatExt;

const ALPN: &[u8] = b"tls-tunnel/1";

pub trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}
pub type Connection = Box<dyn Both>;

/// `--name value` pairs; `--listen` has no value.
pub struct Options(HashMap<String, String>);

impl Options {
    pub fn parse() -> Self {
        let mut options = HashMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let name = word.trim_start_matches('-').to_owned();
            let value = if name == "listen" { None } else { words.next() };
            options.insert(name, value.unwrap_or_default());
        }
        Self(options)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn listens(&self) -> bool {
        self.0.contains_key("listen")
    }
}

pub async fn connect(options: &Options) -> crate::Result<Connection> {
    if options.listens() {
        accept(options).await
    } else {
        dial(options).await
    }
}

async fn dial(options: &Options) -> crate::Result<Connection> {
    let tcp = TcpStream::connect(options.get("connect").ok_or("--connect or --listen")?).await?;
    tcp.set_nodelay(true)?;
    let Some(ca) = options.get("ca") else {
        return Ok(Box::new(tcp.compat()));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Box::new(
        connector
            .connect("localhost".try_into()?, tcp)
            .await?
            .compat(),
    ))
}

async fn accept(options: &Options) -> crate::Result<Connection> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let (tcp, _) = listener.accept().await?;
    tcp.set_nodelay(true)?;
    let (Some(cert), Some(key)) = (options.get("cert"), options.get("key")) else {
        return Ok(Box::new(tcp.compat()));
    };
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Ok(Box::new(acceptor.accept(tcp).await?.compat()))
}
