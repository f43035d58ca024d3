import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/**
 * The load of `client stress --case lifecycle`, made by ZooKeeper's own Java client and by nothing of ours: what that measures
 * is compared to. Twice in a row; the first time warms the JVM up and is not counted.
 *
 *     scenarios/zookeeper java Lifecycle.java HOST:PORT ROOT CLIENTS ZNODES MODIFY DATA_SIZE
 *
 * Prints for each operation: how many, and mean, median and 99th percentile in milliseconds.
 */
public class Lifecycle {
    static final TreeMap<String, List<Long>> latencies = new TreeMap<>();

    static void took(String operation, long began) {
        long nanos = System.nanoTime() - began;
        synchronized (latencies) {
            latencies.computeIfAbsent(operation, o -> new ArrayList<>()).add(nanos);
        }
    }

    static void live(String hosts, String root, int client, int znodes, int modify, byte[] data, CyclicBarrier start)
            throws Exception {
        start.await();
        CountDownLatch connected = new CountDownLatch(1);
        long began = System.nanoTime();
        ZooKeeper zk = new ZooKeeper(hosts, 10_000, event -> {
            if (event.getState() == KeeperState.SyncConnected) connected.countDown();
        });
        connected.await();
        took("connect", began);
        List<String> paths = new ArrayList<>();
        for (int n = 0; n < znodes; n++) {
            began = System.nanoTime();
            paths.add(zk.create(root + "/" + client + "-", data, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL));
            took("create", began);
        }
        List<CountDownLatch> fired = new ArrayList<>();
        long[] modified = new long[znodes];
        for (int n = 0; n < znodes; n++) {
            CountDownLatch latch = new CountDownLatch(1);
            fired.add(latch);
            int at = n;
            began = System.nanoTime();
            zk.getData(paths.get(n), event -> {
                if (event.getType() != EventType.NodeDataChanged) return; // the session's end
                took("watch", modified[at]);
                latch.countDown();
            }, null);
            took("read", began);
        }
        for (int n = 0; n < modify; n++) {
            modified[n] = System.nanoTime();
            zk.setData(paths.get(n), data, -1);
            took("modify", modified[n]);
            if (!fired.get(n).await(30, TimeUnit.SECONDS)) throw new IllegalStateException("no notification");
        }
        zk.close();
    }

    static void run(String[] args) throws Exception {
        int clients = Integer.parseInt(args[2]);
        int znodes = Integer.parseInt(args[3]);
        int modify = Integer.parseInt(args[4]);
        byte[] data = new byte[Integer.parseInt(args[5])];
        CyclicBarrier start = new CyclicBarrier(clients);
        List<Thread> threads = new ArrayList<>();
        for (int client = 0; client < clients; client++) {
            int number = client;
            Thread thread = new Thread(() -> {
                try {
                    live(args[0], args[1], number, znodes, modify, data, start);
                } catch (Exception error) {
                    error.printStackTrace();
                    System.exit(1);
                }
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) thread.join();
    }

    public static void main(String[] args) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(args[0], 10_000, event -> connected.countDown());
        connected.await();
        zk.create(args[1], new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        run(args);
        latencies.clear();
        run(args);
        zk.delete(args[1], -1);
        zk.close();
        for (String operation : new String[] {"connect", "create", "read", "modify", "watch"}) {
            long[] all = latencies.get(operation).stream().mapToLong(Long::longValue).sorted().toArray();
            double mean = Arrays.stream(all).average().orElse(0) / 1e6;
            System.out.printf("%-8s %7d %9.3f %9.3f %9.3f%n", operation, all.length, mean,
                all[all.length / 2] / 1e6, all[all.length * 99 / 100] / 1e6);
        }
    }
}
