import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Collections;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;

/**
 * A neighbour on the same ZooKeeper who does wrong: by ZooKeeper's own Java client, and by nothing of ours.
 *
 *     scenarios/zookeeper java Neighbour.java HOST:PORT,...
 *
 * Reads commands from standard input, and answers each with a line once it is done:
 *
 *     begin DEED    does it
 *     end DEED      undoes it
 *
 *     unreadable    znodes below each root that only their owner may read
 *     candidate     a persistent znode with the lowest number in /master
 *     garbage       hundreds of znodes below each root that are nothing, one job of garbage, and one 20 levels deep
 *     fat           30 records of 900 kB below /tasks and /workers
 *     greedy        a worker that takes whatever is assigned to it, four thousand million at a time, and runs nothing
 */
public class Neighbour {
    static final int FAT_BYTES = 900_000;
    static final List<String> ROOTS = List.of("/tasks", "/workers", "/data", "/master");
    static final List<ACL> OWN = Collections.singletonList(new ACL(Perms.ALL, new Id("digest", "stranger:of+no+herd=")));

    final ZooKeeper zk;
    /** What each deed has left, the last first. */
    final Map<String, Deque<String>> left = new HashMap<>();
    /** Names are of one deed only: that a job is opened a second time is for others to do. */
    int deeds;

    Neighbour(String hosts) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        zk = new ZooKeeper(hosts, 60_000, event -> {
            if (event.getState() == KeeperState.SyncConnected) connected.countDown();
        });
        connected.await();
    }

    interface Call {
        void make() throws KeeperException, InterruptedException;
    }

    /** Until there is an answer, for two minutes at most: servers may be away. */
    static void insist(Call call) throws Exception {
        for (long until = System.nanoTime() + 120_000_000_000L; System.nanoTime() < until; ) {
            try {
                call.make();
                return;
            } catch (KeeperException.NodeExistsException | KeeperException.NoNodeException done) {
                return;
            } catch (KeeperException.ConnectionLossException away) {
                Thread.sleep(100);
            }
        }
        throw new KeeperException.ConnectionLossException();
    }

    void create(String deed, String path, byte[] data, List<ACL> acl, CreateMode mode) throws Exception {
        left.computeIfAbsent(deed, d -> new ArrayDeque<>()).push(path);
        insist(() -> zk.create(path, data, acl, mode));
    }

    void create(String deed, String path, byte[] data) throws Exception {
        create(deed, path, data, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    void begin(String deed) throws Exception {
        String uid = String.format("-%08x", 0x0badcafe + deeds++);
        switch (deed) {
            case "unreadable" -> {
                for (String root : List.of("/data", "/tasks", "/workers"))
                    create(deed, root + "/secret" + uid, bytes("{}"), OWN, CreateMode.PERSISTENT);
                create(deed, "/master/secret" + uid + "-0999999999", bytes("{}"), OWN, CreateMode.PERSISTENT);
                create(deed, "/tasks/strange" + uid, bytes("{\"kind\":\"nobody\",\"sealed\":true}"));
                create(deed, "/tasks/strange" + uid + "/secret", new byte[0], OWN, CreateMode.PERSISTENT);
            }
            case "candidate" -> create(deed, "/master/old" + uid + "-0000000000", bytes("{}"));
            case "garbage" -> {
                Random random = new Random(1); // the same garbage each time
                for (String root : ROOTS)
                    for (int n = 0; n < 100; n++) {
                        byte[] data = new byte[random.nextInt(200)];
                        random.nextBytes(data);
                        create(deed, root + "/" + List.of("ü", "x ", "...", "-", "@", "{}").get(n % 6) + n, data);
                    }
                create(deed, "/tasks/garbage" + uid, bytes("{\"kind\": [\"not\", \"a\", \"kind\"]"));
                create(deed, "/tasks/garbage" + uid + "/tenth", bytes("\u0000\u0001"));
                String path = "/tasks/deep" + uid;
                for (int level = 0; level < 20; level++, path += "/deep") create(deed, path, new byte[0]);
            }
            case "fat" -> {
                byte[] data = new byte[FAT_BYTES];
                Arrays.fill(data, (byte) '[');
                for (int n = 10; n < 40; n++) create(deed, (n < 30 ? "/tasks/fat-" : "/workers/fat-") + n + uid, data);
            }
            case "greedy" -> create(deed, "/workers/greedy" + uid,
                    bytes("{\"slots\":4000000000,\"kinds\":[\"abyss\"],\"tags\":[],\"assigned\":[]}"), Ids.OPEN_ACL_UNSAFE,
                    CreateMode.EPHEMERAL);
            default -> throw new IllegalArgumentException(deed);
        }
    }

    void end(String deed) throws Exception {
        Deque<String> paths = left.getOrDefault(deed, new ArrayDeque<>());
        while (!paths.isEmpty()) {
            String path = paths.pop();
            if (path.startsWith("/tasks/secret")) { // a job goes with its data, as a whole
                String data = paths.removeLast();
                insist(() -> zk.multi(List.of(Op.delete(path, -1), Op.delete(data, -1))));
            } else insist(() -> zk.delete(path, -1));
        }
    }

    public static void main(String[] args) throws Exception {
        Neighbour neighbour = new Neighbour(args[0]);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = commands.readLine()) != null; ) {
            String[] words = line.trim().split(" ");
            if (words[0].equals("begin")) neighbour.begin(words[1]);
            else if (words[0].equals("end")) neighbour.end(words[1]);
            else throw new IllegalArgumentException(line);
            System.out.println(line);
        }
        neighbour.zk.close();
    }
}
