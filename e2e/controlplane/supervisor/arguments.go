package supervisor

import (
	"fmt"
	"strings"
)

// controllers that tests need: what makes namespaces, tokens and owned objects
// live and die, the workloads that later tests restart, and certificates of
// clients.
var controllers = []string{
	"garbage-collector", "namespace", "serviceaccount", "serviceaccount-token",
	"root-ca-certificate-publisher", "clusterrole-aggregation", "deployment",
	"replicaset", "statefulset", "daemonset", "job", "cronjob", "endpointslice",
	"disruption", "validatingadmissionpolicy-status",
	"certificatesigningrequest-signing",
}

func etcdArguments(folder *folder, clientURL, peerURL string) []string {
	return []string{
		"--data-dir=" + folder.etcdData(),
		"--client-url=" + clientURL,
		"--peer-url=" + peerURL,
	}
}

// apiserverArguments puts the caller's own flags last, where they win.
func apiserverArguments(options Options, folder *folder, etcdURL string, port int) []string {
	issuer := fmt.Sprintf("https://127.0.0.1:%d", port)
	arguments := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--cert-dir=" + folder.certificates(),
		"--service-account-issuer=" + issuer,
		"--service-account-jwks-uri=" + issuer + "/openid/v1/jwks",
		"--service-account-key-file=" + folder.publicKey(),
		"--service-account-signing-key-file=" + folder.privateKey(),
		"--token-auth-file=" + folder.tokens(),
		"--client-ca-file=" + folder.clientCA(),
		"--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC",
		"--allow-privileged",
	}
	if options.Audit {
		arguments = append(arguments,
			"--audit-policy-file="+folder.auditPolicy(),
			"--audit-log-path="+folder.auditLog(),
			// A line is in the file before its request is answered: who counts
			// after an answer counts everything.
			"--audit-log-mode=blocking",
			// Readers follow one file: 100 GB, so never turned over.
			"--audit-log-maxsize=102400",
		)
	}
	if options.EmulatedVersion != "" {
		arguments = append(arguments, "--emulated-version="+options.EmulatedVersion)
	}
	if options.MinRequestTimeout > 0 {
		arguments = append(arguments, fmt.Sprintf("--min-request-timeout=%d", options.MinRequestTimeout))
	}
	return append(arguments, options.APIServerArguments...)
}

func controllerManagerArguments(options Options, folder *folder, port int) []string {
	kubeconfig := folder.controllerManagerKubeconfig()
	arguments := []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + folder.privateKey(),
		"--root-ca-file=" + folder.ca(),
		"--cluster-signing-cert-file=" + folder.clientCA(),
		"--cluster-signing-key-file=" + folder.clientCAKey(),
		"--controllers=" + strings.Join(controllers, "-controller,") + "-controller",
	}
	if options.EmulatedVersion != "" {
		arguments = append(arguments, "--emulated-version="+options.EmulatedVersion)
	}
	return arguments
}
