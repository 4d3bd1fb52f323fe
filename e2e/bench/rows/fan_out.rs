//! What many objects share: one key, one identity.

use std::time::{Duration, Instant, SystemTime};

use super::{Size, pause};
use crate::bench::counts::Cost;
use crate::bench::objects::{self, Many};
use crate::bench::scene::{Scene, TEXT};
use crate::bench::table::Table;
use crate::proxy::Matcher;

const OBJECTS: usize = 100;

pub async fn measure(scene: &Scene, table: &mut Table, _size: &Size) {
    let stage = scene.stage_with_login().await;
    let keys = ["together".to_owned(), "shared".to_owned()];
    objects::put_keys(&scene.bao, &keys, TEXT).await;
    let [together, shared] = keys;
    // Nothing falls due meanwhile, so that what is read is read for the start.
    let many = Many::of_one_key(&stage.store, "24h", "t", OBJECTS, &together);
    many.create(&stage.cluster).await;
    let mark = scene.audit.mark();
    let program = scene.operator().await;
    scene.all_ready(&stage.cluster, mark, &many.names()).await;
    let cost = scene.requests(mark);
    let credentials = Cost(&cost).reads_of(&stage.cluster.namespace, "secrets");
    let logins = stage.proxy.count(&Matcher::any().resource("auth/approle/login"));
    let reads = stage.proxy.count(&Matcher::any().resource("secret/data/together"));
    let figure = format!("{logins} login; {credentials} read of the credential, {reads} of the one value");
    let is_once = logins == 1 && credentials == 1 && reads == 1;
    table.enter(&format!("{OBJECTS} objects of one Vault identity and key start together"), "1 login, 1 read", figure, is_once);

    let many = Many::of_one_key(&stage.store, "10s", "s", OBJECTS, &shared);
    let mark = scene.audit.mark();
    many.create(&stage.cluster).await;
    scene.all_ready(&stage.cluster, mark, &many.names()).await;
    let (mark, changed, began) = (scene.audit.mark(), SystemTime::now(), Instant::now());
    objects::put_keys(&scene.bao, &[shared], "changed").await;
    let made = |what: &str| Cost(&scene.requests(mark)).work().get(what).copied().unwrap_or_default();
    for what in ["patch secrets", "patch keyferry.dev/externalsecrets/status"] {
        while made(what) < OBJECTS {
            assert!(began.elapsed() < Duration::from_mins(1), "{what}: {}", made(what));
            pause(Duration::from_millis(50)).await;
        }
    }
    pause(Duration::from_secs(1)).await;
    let reads = stage.proxy.calls().iter().filter(|call| call.wall > changed).count();
    let work = Cost(&scene.requests(mark)).work();
    let figure = format!("{reads} read, {work:?}");
    let is_right = reads == 1 && work.values().sum::<usize>() == 2 * OBJECTS && work.get("patch secrets") == Some(&OBJECTS);
    table.enter(&format!("one changed key used by {OBJECTS} objects"), "1 read, 100 Secrets", figure, is_right);
    program.kill();
    stage.leave().await;
}
