//! Adopting by itself what lies beside the recordings: once for each scan of the library.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    config::CurrentSettings,
    service::{Service, Tried},
};

/// Adopts what scans find, once in each `rescan_interval`. It never returns.
pub(super) async fn run(service: Arc<Service>, mut current: watch::Receiver<CurrentSettings>) {
    let mut tried = Tried::new();
    loop {
        wait(&mut current).await;
        let service = Arc::clone(&service);
        let runtime = tokio::runtime::Handle::current();
        let mut known = std::mem::take(&mut tried);
        let adopting = spawn_blocking(move || {
            let _runtime = runtime.enter();
            service.auto_adopt(&mut known);
            known
        });
        tried = adopting.await.unwrap_or_default();
    }
}

/// Waits for one `rescan_interval`. A changed interval counts from the change.
async fn wait(current: &mut watch::Receiver<CurrentSettings>) {
    let interval = |current: &mut watch::Receiver<CurrentSettings>| current.borrow_and_update().live.rescan_interval;
    let mut every = interval(current);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => return,
            () = changed_from(current, every) => every = interval(current),
        }
    }
}

/// Waits until the interval is another one.
async fn changed_from(current: &mut watch::Receiver<CurrentSettings>, every: Duration) {
    if current.wait_for(|now| now.live.rescan_interval != every).await.is_err() {
        // The node is ending, and this task with it.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::config::{Config, Files};

    fn settings(rescan_interval: &str) -> CurrentSettings {
        let flags = [("rescan_interval".to_owned(), rescan_interval.to_owned())];
        CurrentSettings::from(&Config::of(Path::new("/home"), &Files::default(), &BTreeMap::new(), &flags))
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rescan_interval_counts_at_once() {
        let (change, mut current) = watch::channel(settings("1h"));
        let waiting = tokio::spawn(async move { wait(&mut current).await });
        tokio::time::timeout(Duration::from_secs(60), async {
            tokio::time::timeout(Duration::from_secs(2), std::future::pending::<()>()).await.unwrap_err();
            change.send_replace(settings("5s"));
            waiting.await.unwrap();
        })
        .await
        .expect("the new interval is used before the old one is over");
    }
}
