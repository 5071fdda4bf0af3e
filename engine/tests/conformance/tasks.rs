//! Tasks, time, and the end of a body.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::{Body, Buf, BufPool, Open, SimWorld, block_on};
use tokio::sync::mpsc;

use crate::stage::{Stage, real_bodies, shared};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) async fn sleepers_wake_in_order(stage: Stage) {
    let woken = Rc::new(RefCell::new(Vec::new()));
    for delay in [60, 20, 100] {
        let (io, woken) = (stage.io.clone(), Rc::clone(&woken));
        stage.io.spawn(async move {
            io.sleep(ms(delay)).await;
            woken.borrow_mut().push(delay);
        });
    }
    while woken.borrow().len() < 3 {
        stage.io.sleep(ms(5)).await;
    }
    assert_eq!(*woken.borrow(), [20, 60, 100]);
}

pub(crate) async fn a_timeout_elapses_and_frees_what_it_held(stage: Stage) {
    let held = Rc::new(());
    let inside = Rc::clone(&held);
    let result = stage
        .io
        .timeout(ms(10), async move {
            let _inside = inside;
            std::future::pending::<()>().await;
        })
        .await;
    assert_eq!(result.unwrap_err().after, ms(10));
    assert_eq!(Rc::strong_count(&held), 1);
}

pub(crate) async fn work_within_the_limit_is_returned(stage: Stage) {
    let io = stage.io.clone();
    let work = async move {
        io.sleep(ms(1)).await;
        7
    };
    assert_eq!(stage.io.timeout(Duration::from_secs(60), work).await, Ok(7));
}

pub(crate) async fn spawned_tasks_run_and_may_spawn(stage: Stage) {
    let (send, mut results) = mpsc::channel(10);
    for outer in 0..10 {
        let (io, send) = (stage.io.clone(), send.clone());
        stage.io.spawn(async move {
            let again = io.clone();
            io.spawn(async move {
                again.sleep(ms(1)).await;
                send.send(outer).await.unwrap();
            });
        });
    }
    drop(send);
    let mut sum = 0;
    while let Some(outer) = results.recv().await {
        sum += outer;
    }
    assert_eq!(sum, 45);
}

pub(crate) async fn time_goes_forward(stage: Stage) {
    let before = stage.io.now();
    stage.io.sleep(ms(15)).await;
    assert!(stage.io.now() >= before + ms(15));
}

pub(crate) async fn a_receive_with_a_timeout_can_be_given_up(stage: Stage) {
    let pool = BufPool::new(1, 4096).unwrap();
    let listener = stage.io.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let client = stage.io.connect(listener.local_addr().unwrap()).await.unwrap();
    let (_server, _) = listener.accept().await.unwrap();
    let (mut recv, send) = client.into_split();
    let buf = pool.try_get().unwrap();
    assert!(stage.io.timeout(ms(5), recv.recv_exact(buf, 0..4096)).await.is_err());
    drop((recv, send));
    // The buffer comes back as soon as the kernel has let go of it.
    assert_eq!(pool.get().await.len(), 4096);
}

/// A wake from another thread reaches a task that sleeps on its descriptors.
#[test]
fn channels_from_other_threads_wake_tasks() {
    for body in real_bodies() {
        let (send, mut numbers) = mpsc::channel(1);
        let (answer, answers) = std::sync::mpsc::sync_channel(1);
        let sender = std::thread::spawn(move || {
            for number in 0..200 {
                if number % 50 == 0 {
                    std::thread::sleep(ms(5));
                }
                send.blocking_send(number).unwrap();
                // Waits until it was received, so that each send finds a sleeper.
                assert_eq!(answers.recv().unwrap(), number);
            }
        });
        block_on(body, |_io| async move {
            while let Some(number) = numbers.recv().await {
                answer.send(number).unwrap();
            }
        })
        .unwrap();
        sender.join().unwrap();
    }
}

fn every_body() -> Vec<Body> {
    let mut bodies = real_bodies();
    bodies.push(Body::Sim(SimWorld::new(2)));
    bodies
}

/// Tasks that wait for everything there is are dropped with all they hold when `main` ends.
#[test]
fn a_body_ends_with_tasks_in_flight() {
    for body in every_body() {
        for _ in 0..5 {
            ends_with_tasks_in_flight(body.clone());
        }
    }
}

fn ends_with_tasks_in_flight(body: Body) {
    let folder = tempfile::tempdir().unwrap();
    let pool = BufPool::new(64, 64 << 10).unwrap();
    let held = Rc::new(());
    let simulated = matches!(body, Body::Sim(_));
    let path = if simulated { "/file".into() } else { folder.path().join("file") };
    block_on(body, async |io| {
        if simulated {
            let _ = io.unlink(&path).await;
        }
        let file = Rc::new(io.open(&path, Open { read: true, ..Open::CREATE_DIRECT }).await.unwrap());
        file.fallocate(64 * (64 << 10)).await.unwrap();
        let listener = io.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = listener.local_addr().unwrap();
        for _ in 0..16 {
            let (pool, held) = (pool.clone(), Rc::clone(&held));
            let stream = io.connect(at).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let task_io = io.clone();
            io.spawn(async move {
                let (_held, _server) = (held, server);
                let (mut recv, _send) = stream.into_split();
                let _unit = recv.recv_exact(pool.get().await, 0..4096).await;
                task_io.sleep(Duration::from_secs(3600)).await;
            });
        }
        for index in 0..32_u64 {
            let (pool, file) = (pool.clone(), Rc::clone(&file));
            io.spawn(async move {
                loop {
                    let buf = pool.get().await.share();
                    file.write_at(buf, 0..64 << 10, index * (64 << 10)).await.unwrap();
                    file.fdatasync().await.unwrap();
                }
            });
        }
        io.spawn(async move {
            let _listener = listener.accept().await;
        });
        io.sleep(ms(3)).await;
    })
    .unwrap();
    assert_eq!(pool.free(), 64);
    assert_eq!(Rc::strong_count(&held), 1);
}

/// Reads that nobody waits for any more have their memory until the end.
#[test]
fn dropped_reads_are_waited_for() {
    for body in real_bodies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let pool = BufPool::new(32, 256 << 10).unwrap();
        block_on(body, async |io| {
            let file = io.open(&path, Open { read: true, ..Open::CREATE_DIRECT }).await.unwrap();
            file.fallocate(32 * (256 << 10)).await.unwrap();
            for index in 0..32_u64 {
                let mut read =
                    std::pin::pin!(file.read_at(pool.try_get().unwrap(), 0..256 << 10, index * (256 << 10)));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let _begun = Future::poll(read.as_mut(), &mut context);
            }
        })
        .unwrap();
        assert_eq!(pool.free(), 32);
    }
}

#[test]
fn the_panic_of_a_task_ends_the_body() {
    for body in every_body() {
        let name = body.to_string();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            block_on(body, async |io| {
                io.spawn(async { panic!("on purpose") });
                std::future::pending::<()>().await;
            })
        }));
        let panic = outcome.expect_err(&name);
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    }
}

#[test]
fn the_output_of_main_is_returned_and_bodies_may_follow_each_other() {
    for body in every_body() {
        let runs = Cell::new(0);
        for round in 1..=3 {
            let output = block_on(body.clone(), async |io| {
                io.sleep(ms(1)).await;
                runs.set(runs.get() + 1);
                io.body_name()
            });
            assert_eq!(output.unwrap(), body.to_string());
            assert_eq!(runs.get(), round);
        }
    }
}

#[test]
fn a_buffer_shared_by_disk_and_network_serves_both() {
    for body in real_bodies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        block_on(body, async |io| {
            let listener = io.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            let client = io.connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let file = io.open(&path, Open { read: true, ..Open::CREATE }).await.unwrap();
            let bytes = shared(b"both");
            let (_recv, mut send) = client.into_split();
            send.send_all(bytes.clone(), 0..4).await.unwrap();
            file.write_at(bytes, 0..4, 0).await.unwrap();
            let (mut recv, _send) = server.into_split();
            assert_eq!(&recv.recv_exact(Buf::alloc(4), 0..4).await.1[..], b"both");
            assert_eq!(&file.read_at(Buf::alloc(4), 0..4, 0).await.1[..], b"both");
        })
        .unwrap();
    }
}
