import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import org.springframework.security.crypto.bcrypt.BCryptPasswordEncoder;

/**
 * Prints the CPU milliseconds of one bcrypt hash while all cores hash, after as long a warm-up. It runs with a Spring
 * peer's own libraries. Arguments: the strength, the seconds, the password.
 */
class BareBcrypt {
    record Done(long count, long nanoseconds) {}

    public static void main(String[] arguments) throws Exception {
        var encoder = new BCryptPasswordEncoder(Integer.parseInt(arguments[0]));
        double seconds = Double.parseDouble(arguments[1]);
        measure(encoder, seconds, arguments[2]);
        System.out.println(measure(encoder, seconds, arguments[2]));
    }

    static double measure(BCryptPasswordEncoder encoder, double seconds, String password) throws Exception {
        long end = System.nanoTime() + (long) (seconds * 1e9);
        var works = new ArrayList<Callable<Done>>();
        for (int core = 0; core < Runtime.getRuntime().availableProcessors(); core++) {
            works.add(() -> {
                var threads = ManagementFactory.getThreadMXBean();
                long begun = threads.getCurrentThreadCpuTime(), count = 0;
                for (; System.nanoTime() < end; count++) {
                    encoder.encode(password);
                }
                return new Done(count, threads.getCurrentThreadCpuTime() - begun);
            });
        }
        long count = 0, nanoseconds = 0;
        var pool = Executors.newFixedThreadPool(works.size());
        for (var future : pool.invokeAll(works)) {
            count += future.get().count();
            nanoseconds += future.get().nanoseconds();
        }
        pool.shutdown();
        return nanoseconds / 1e6 / count;
    }
}
