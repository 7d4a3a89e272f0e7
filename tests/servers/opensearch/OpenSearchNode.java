import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node with HTTP on the loopback, until it is killed. Arguments: its directory, the ports of HTTP and transport. */
public class OpenSearchNode {
    public static void main(String[] arguments) throws Exception {
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("http.port", arguments[1]);
            settings.put("transport.port", arguments[2]);
            settings.put("network.host", "127.0.0.1");
            settings.put("discovery.type", "single-node");
            // The tests' disk may be nearly full, which is none of the node's business.
            settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
        });
        runner.build(OpenSearchRunner.newConfigs()
            .basePath(arguments[0])
            .numOfNode(1)
            .clusterName("tests")
            .moduleTypes("org.opensearch.transport.Netty4Plugin")
            .useLogger());
        Thread.currentThread().join();
    }
}
