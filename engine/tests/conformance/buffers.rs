//! Pools: waiting for a buffer, and getting every one of them back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::{BufPool, Open};

use crate::stage::Stage;

pub(crate) async fn an_empty_pool_makes_callers_wait_in_order(stage: Stage) {
    let pool = BufPool::new(2, 4096).unwrap();
    let taken = [pool.get().await, pool.get().await];
    assert!(pool.try_get().is_none());
    let served = Rc::new(RefCell::new(Vec::new()));
    for index in 0..6 {
        let (io, pool, served) = (stage.io.clone(), pool.clone(), Rc::clone(&served));
        stage.io.spawn(async move {
            // They queue up one after the other, whatever order a scheduler likes.
            io.sleep(Duration::from_millis(10 * index)).await;
            let _buf = pool.get().await;
            served.borrow_mut().push(index);
            io.sleep(Duration::from_millis(1)).await;
        });
    }
    stage.io.sleep(Duration::from_millis(100)).await;
    assert!(served.borrow().is_empty());
    drop(taken);
    while served.borrow().len() < 6 {
        stage.io.sleep(Duration::from_millis(1)).await;
    }
    let served = served.borrow();
    // Two at a time: neighbours may change places.
    assert!(served.iter().enumerate().all(|(place, index)| place / 2 == *index as usize / 2), "{served:?}");
}

pub(crate) async fn buffers_return_when_both_users_are_done(stage: Stage) {
    let pool = BufPool::new(1, 4096).unwrap();
    let file = Rc::new(stage.io.open(&stage.path("file"), Open::CREATE).await.unwrap());
    for _ in 0..10 {
        let shared = pool.get().await.share();
        for offset in [0, 4096] {
            let (file, shared) = (Rc::clone(&file), shared.clone());
            stage.io.spawn(async move { file.write_at(shared, 0..4096, offset).await.unwrap() });
        }
        drop(shared);
    }
    let _last = pool.get().await;
    assert_eq!(file.len().await.unwrap(), 8192);
}

pub(crate) async fn everything_returns_when_the_body_ends(stage: Stage) {
    let pool = BufPool::new(4, 1 << 20).unwrap();
    let file = Rc::new(stage.io.open(&stage.path("file"), Open::CREATE_DIRECT).await.unwrap());
    for index in 0..12_u64 {
        let (file, pool) = (Rc::clone(&file), pool.clone());
        stage.io.spawn(async move {
            let buf = pool.get().await.share();
            file.write_at(buf, 0..1 << 20, index << 20).await.unwrap();
        });
    }
    while file.len().await.unwrap() < 12 << 20 || pool.free() < 4 {
        stage.io.sleep(Duration::from_millis(1)).await;
    }
}
