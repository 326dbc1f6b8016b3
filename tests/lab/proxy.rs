//! A TCP proxy on loopback that fails on command.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
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
    /// Passes on so many bytes of one direction, then ends both ways with a reset instead of in good order.
    Reset {
        /// Whose bytes count.
        direction: Direction,
        /// How many are passed on.
        after: u64,
    },
    /// Passes on so many bytes of one direction, then ends the server's side while the client hears nothing.
    HalfOpen {
        /// Whose bytes count.
        direction: Direction,
        /// How many are passed on.
        after: u64,
    },
    /// Holds the bytes of one direction back once, after so many of them.
    Delay {
        /// Whose bytes count.
        direction: Direction,
        /// How many are passed on at once.
        after: u64,
        /// For how long the others wait.
        pause: Duration,
    },
    /// Puts a distance before the server, for connections that begin then: they are slower, not narrower.
    Latency {
        /// How long bytes travel, each way.
        each_way: Duration,
    },
    /// Listens no longer: new connections are refused by the kernel, old ones live on.
    Refuse,
}

impl Fault {
    /// Whose bytes count and how many are passed on, where that matters.
    fn place(self) -> Option<(Direction, u64)> {
        match self {
            Self::Cut { direction, after }
            | Self::BlackHole { direction, after }
            | Self::Reset { direction, after }
            | Self::HalfOpen { direction, after }
            | Self::Delay { direction, after, .. } => Some((direction, after)),
            Self::None | Self::Latency { .. } | Self::Refuse => None,
        }
    }
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
    script: Mutex<Script>,
    connections: AtomicUsize,
    listening: AtomicBool,
    over: AtomicBool,
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

/// What the next connections meet, one by one.
#[derive(Default)]
struct Script {
    next: VecDeque<(usize, Fault)>,
    /// Those that came to it. Connections that outlive their script have its list.
    met: Arc<Mutex<Vec<usize>>>,
}

/// The fault of one connection.
#[derive(Clone)]
struct Own {
    fault: Fault,
    index: usize,
    met: Arc<Mutex<Vec<usize>>>,
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
            script: Mutex::default(),
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
        if wanted {
            self.unpark();
        } else {
            self.wake();
        }
        wait_until("the proxy to change its mind", SOON, || {
            (self.shared.listening.load(Ordering::SeqCst) == wanted).then_some(())
        })
    }

    /// Lets a listener that refuses look at what has changed.
    fn unpark(&self) {
        if let Some(listener) = &self.listener {
            listener.thread().unpark();
        }
    }

    /// [`Self::unpark`], also for one that waits for a connection.
    fn wake(&self) {
        self.unpark();
        drop(TcpStream::connect(self.address));
    }

    /// The next connections meet these faults, one each; those after them what [`Self::set`] says.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        let next = faults.into_iter().enumerate().collect();
        *lock(&self.shared.script) = Script { next, met: Arc::default() };
    }

    /// Which connections of the script, counted from 0, have come to their fault so far.
    pub fn met(&self) -> Vec<usize> {
        lock(&lock(&self.shared.script).met).clone()
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.streams).drain(..).filter_map(|stream| stream.upgrade()) {
            drop(stream.shutdown(Shutdown::Both));
        }
        self.wake();
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).could_not(|| format!("listen on {address}"))
}

fn accept(shared: &Arc<Shared>, first: TcpListener, address: SocketAddr) {
    let mut listener = Some(first);
    while !shared.over.load(Ordering::SeqCst) {
        if *lock(&shared.fault) == Fault::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = listen(address).ok();
        }
        shared.listening.store(listener.is_some(), Ordering::SeqCst);
        match &listener {
            Some(listener) => {
                let Ok((client, _)) = listener.accept() else { continue };
                // Else it was only woken.
                if !shared.over.load(Ordering::SeqCst) && *lock(&shared.fault) != Fault::Refuse {
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    let shared = Arc::clone(shared);
                    thread::spawn(move || connect(&shared, client));
                }
            }
            None => thread::park_timeout(SOON),
        }
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect(shared.target) else {
        drop(client.shutdown(Shutdown::Both));
        return;
    };
    // A proxy that delays small packets would hide races that a real network has.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (client, server) = (Arc::new(client), Arc::new(server));
    lock(&shared.streams).extend([Arc::downgrade(&client), Arc::downgrade(&server)]);
    let everywhere = *lock(&shared.fault);
    if let Fault::Latency { each_way } = everywhere {
        carry_far(client, server, each_way);
        return;
    }
    let own = {
        let mut script = lock(&shared.script);
        script.next.pop_front().map(|(index, fault)| Own { fault, index, met: Arc::clone(&script.met) })
    };
    let swallowing = Arc::new(AtomicBool::new(false));
    let mut up = Pump {
        shared: Arc::clone(shared),
        own,
        swallowing,
        direction: Direction::ToServer,
        from: Arc::clone(&client),
        to: Arc::clone(&server),
    };
    let down = Pump { direction: Direction::ToClient, from: server, to: client, ..up.clone() };
    let up = thread::spawn(move || up.carry());
    let mut down = down;
    down.carry();
    drop(down);
    drop(up.join());
}

/// Carries one connection over a distance: everything arrives in order, as far
/// apart as it was sent, and so much later.
fn carry_far(client: Arc<TcpStream>, server: Arc<TcpStream>, each_way: Duration) {
    // The kernel has shaken hands for a server that is not as near as it seemed.
    wait(each_way * 2);
    let up = thread::spawn({
        let (client, server) = (Arc::clone(&client), Arc::clone(&server));
        move || carry_one_way(&client, &server, each_way)
    });
    carry_one_way(&server, &client, each_way);
    drop(up.join());
}

fn carry_one_way(from: &TcpStream, mut to: &TcpStream, each_way: Duration) {
    let (line, arrivals) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (due, bytes) in arrivals {
                wait(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            drop(to.shutdown(Shutdown::Write));
        });
        let mut buffer = vec![0; 16 * 1024];
        loop {
            // The end travels like everything else.
            let bytes = read_some(from, &mut buffer).to_vec();
            let over = bytes.is_empty();
            if line.send((Instant::now() + each_way, bytes)).is_err() || over {
                break;
            }
        }
        drop(line);
    });
}

/// What comes next; nothing at the end, however it came.
fn read_some<'a>(mut from: &TcpStream, buffer: &'a mut [u8]) -> &'a [u8] {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return buffer.get(..read.unwrap_or(0)).unwrap_or_default(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a distance: there is nothing else to wait for")]
fn wait(time: Duration) {
    thread::sleep(time);
}

/// One way of one connection.
#[derive(Clone)]
struct Pump {
    shared: Arc<Shared>,
    own: Option<Own>,
    swallowing: Arc<AtomicBool>,
    direction: Direction,
    from: Arc<TcpStream>,
    to: Arc<TcpStream>,
}

impl Pump {
    /// Carries bytes, until the end or the fault.
    fn carry(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        let mut passed: u64 = 0;
        loop {
            let bytes = read_some(&self.from, &mut buffer);
            let length = bytes.len();
            if length == 0 {
                break;
            }
            if self.swallowing.load(Ordering::SeqCst) {
                continue;
            }
            let fault = self.own.as_ref().map_or_else(|| *lock(&self.shared.fault), |own| own.fault);
            let limit = match fault.place() {
                Some((counted, after)) if counted == self.direction => {
                    usize::try_from(after.saturating_sub(passed)).unwrap_or(usize::MAX)
                }
                _ => usize::MAX,
            };
            let (part, rest) = bytes.split_at(length.min(limit));
            if (&*self.to).write_all(part).is_err() {
                break;
            }
            passed += part.len() as u64;
            if length >= limit {
                if let Some(own) = &mut self.own {
                    lock(&own.met).push(own.index);
                    // A delay is over once it is over.
                    own.fault = Fault::None;
                }
                if !self.strike(fault) {
                    return;
                }
                if matches!(fault, Fault::Delay { .. }) && (&*self.to).write_all(rest).is_err() {
                    break;
                }
            }
        }
        // In a black hole even the end of a stream is not heard of on the other side.
        if !self.swallowing.load(Ordering::SeqCst) {
            drop(self.to.shutdown(Shutdown::Write));
        }
    }

    /// Waits so long, or until the proxy ends.
    fn hold(&self, pause: Duration) {
        let over = || self.shared.over.load(Ordering::SeqCst).then_some(());
        drop(wait_until("a delay to pass", pause, over));
    }

    /// Does what the fault is, and says whether this way goes on.
    fn strike(&self, fault: Fault) -> bool {
        let (client, server) = match self.direction {
            Direction::ToServer => (&self.from, &self.to),
            Direction::ToClient => (&self.to, &self.from),
        };
        match fault {
            Fault::None | Fault::Latency { .. } | Fault::Refuse => true,
            Fault::BlackHole { .. } => {
                self.swallowing.store(true, Ordering::SeqCst);
                true
            }
            Fault::HalfOpen { .. } => {
                self.swallowing.store(true, Ordering::SeqCst);
                drop(server.shutdown(Shutdown::Both));
                true
            }
            Fault::Cut { .. } => {
                drop((client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both)));
                false
            }
            Fault::Reset { .. } => {
                for stream in [client, server] {
                    // Without lingering the last close is a reset. To shut reading down wakes who
                    // carries the other way, and sends nothing.
                    drop(socket2::SockRef::from(&**stream).set_linger(Some(Duration::ZERO)));
                    drop(stream.shutdown(Shutdown::Read));
                }
                false
            }
            Fault::Delay { pause, .. } => {
                self.hold(pause);
                true
            }
        }
    }
}
