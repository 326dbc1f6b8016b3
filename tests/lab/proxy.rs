//! A TCP proxy on loopback that fails on command.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    error::{Context, Result},
    ports,
    process::wait_until,
};

/// Which way bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What the proxy does to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Passes on so many bytes of one direction, counted from the connection's start, then ends both ways.
    Cut {
        /// Whose bytes count.
        direction: Direction,
        /// How many are passed on.
        after: u64,
    },
    /// Passes on so many bytes of one direction, then swallows everything both ways and keeps the connection open.
    BlackHole {
        /// Whose bytes count.
        direction: Direction,
        /// How many are passed on.
        after: u64,
    },
    /// Listens no longer: new connections are refused by the kernel, old ones live on.
    Refuse,
}

/// A proxy before one address; it ends, with its connections, on drop.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<thread::JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    fault: Mutex<Fault>,
    connections: AtomicUsize,
    listening: AtomicBool,
    over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

const SOON: Duration = Duration::from_secs(5);

impl Proxy {
    /// A proxy that passes everything on to `target` until it is told otherwise.
    pub fn start(target: SocketAddr) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, ports::free()?).into(), target)
    }

    /// [`Self::start`] at an address of one's own choice, such as a well-known
    /// port on one of the many addresses of loopback.
    pub fn start_at(address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::new(Fault::None),
            connections: AtomicUsize::new(0),
            listening: AtomicBool::new(false),
            over: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
        });
        let first = listen(address)?;
        shared.listening.store(true, Ordering::SeqCst);
        let accepting = Arc::clone(&shared);
        let listener = Some(thread::spawn(move || accept(&accepting, first, address)));
        Ok(Self { address, shared, listener })
    }

    /// The address to connect to.
    pub fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on fails like this; open connections are concerned, too. Returns when it is in force.
    pub fn set(&self, fault: Fault) -> Result<()> {
        *lock(&self.shared.fault) = fault;
        let wanted = fault != Fault::Refuse;
        wait_until("the proxy to change its mind", SOON, || {
            (self.shared.listening.load(Ordering::SeqCst) == wanted).then_some(())
        })
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.streams).drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).could_not(|| format!("listen on {address}"))?;
    listener.set_nonblocking(true).could_not(|| "make a listener non-blocking".to_owned())?;
    Ok(listener)
}

fn accept(shared: &Arc<Shared>, first: TcpListener, address: SocketAddr) {
    let mut listener = Some(first);
    // One long wait with short questions: there is always something new to look at.
    drop(wait_until("the proxy to end", Duration::MAX, || {
        if shared.over.load(Ordering::SeqCst) {
            return Some(());
        }
        if *lock(&shared.fault) == Fault::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = listen(address).ok();
        }
        shared.listening.store(listener.is_some(), Ordering::SeqCst);
        while let Some((client, _)) = listener.as_ref().and_then(|listener| listener.accept().ok()) {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(shared);
            thread::spawn(move || connect(&shared, &client));
        }
        None
    }));
}

fn connect(shared: &Arc<Shared>, client: &TcpStream) {
    let Ok(server) = TcpStream::connect(shared.target) else {
        drop(client.shutdown(Shutdown::Both));
        return;
    };
    // A proxy that delays small packets would hide races that a real network has.
    drop((client.set_nonblocking(false), client.set_nodelay(true), server.set_nodelay(true)));
    let swallowing = Arc::new(AtomicBool::new(false));
    let copies = (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
    let (Ok(from_client), Ok(to_server), Ok(kept_client), Ok(kept_server)) = copies else {
        return;
    };
    lock(&shared.streams).extend([kept_client, kept_server]);
    let (shared_up, swallowing_up) = (Arc::clone(shared), Arc::clone(&swallowing));
    let up = thread::spawn(move || pump(&shared_up, &swallowing_up, Direction::ToServer, &from_client, &to_server));
    pump(shared, &swallowing, Direction::ToClient, &server, client);
    drop(up.join());
}

/// Carries bytes one way, until the end or the fault.
fn pump(shared: &Shared, swallowing: &AtomicBool, direction: Direction, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed: u64 = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let Some(bytes) = buffer.get(..length) else {
            break;
        };
        if swallowing.load(Ordering::SeqCst) {
            continue;
        }
        let fault = *lock(&shared.fault);
        let limit = match fault {
            Fault::Cut { direction: counted, after } | Fault::BlackHole { direction: counted, after }
                if counted == direction =>
            {
                usize::try_from(after.saturating_sub(passed)).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        };
        let part = bytes.get(..length.min(limit)).unwrap_or_default();
        if to.write_all(part).is_err() {
            break;
        }
        passed += part.len() as u64;
        if length >= limit {
            if matches!(fault, Fault::Cut { .. }) {
                drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
                return;
            }
            swallowing.store(true, Ordering::SeqCst);
        }
    }
    // In a black hole even the end of a stream is not heard of on the other side.
    if !swallowing.load(Ordering::SeqCst) {
        drop(to.shutdown(Shutdown::Write));
    }
}
