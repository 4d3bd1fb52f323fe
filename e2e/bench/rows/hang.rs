//! A store that hangs delays no other.

use super::{Size, arrivals, pause};
use crate::bench::scene::Scene;
use crate::bench::table::{Table, quantile};
use crate::proxy::{Accepting, Fault, Matcher};

use std::time::Duration;

pub async fn measure(scene: &Scene, table: &mut Table, size: &Size) {
    for (what, is_in_tls, is_in_login) in [("without an answer", false, false), ("in TLS", true, false), ("in its login", false, true)] {
        let hanging = if is_in_login { scene.stage_with_login().await } else { scene.stage().await };
        let working = scene.stage().await;
        let program = scene.operator().await;
        program.at_rest().await;
        let alone = quantile(&arrivals(scene, &working, "n", size.news).await, 0.99);
        let some = if is_in_login { Matcher::any().resource_prefix("auth/") } else { Matcher::any() };
        let broken = hanging.break_some(some, Fault::hang());
        if is_in_tls {
            hanging.proxy.accept(Accepting::HangTls);
        }
        hanging.create("1h", "o", size.objects).await;
        pause(Duration::from_secs(1)).await;
        let beside = quantile(&arrivals(scene, &working, "p", size.news).await, 0.99);
        broken.release();
        let figure = format!("p99 {:.2} × ({beside:.1} ms, alone {alone:.1} ms)", beside / alone);
        let case = format!("a new object at B while A hangs {what} with {} waiting", size.objects);
        table.enter(&case, "p99 ≤ 2 ×", figure, beside / alone <= 2.0);
        program.kill();
        hanging.leave().await;
        working.leave().await;
    }
}
