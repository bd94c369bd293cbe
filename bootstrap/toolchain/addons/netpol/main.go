// kube-network-policies for one node, with a gate before it.
//
// The library decides about connections of the pods it knows, and lets those of others pass; a
// pod's address is published only after the pod has begun to run, so a program that connects at
// once would be ahead of its policies. The gate holds the first packet of every connection that
// comes from a pod's link until the pod behind its address is known, and drops it if that does not
// happen in time.
package main

import (
	"context"
	"flag"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	nfqueue "github.com/florianl/go-nfqueue"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const (
	byAddress = "address"
	patience  = 15 * time.Second
	poll      = 20 * time.Millisecond
)

func main() {
	klog.InitFlags(nil)
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig; empty within a pod")
	node := flag.String("node", "", "name of this node")
	policyQueue := flag.Int("policy-queue", 100, "NFQUEUE that asks for the policies' verdict")
	gateQueue := flag.Int("gate-queue", 101, "NFQUEUE that asks whether the sender is known")
	health := flag.String("health", "127.0.0.1:9081", "address that answers /healthz once packets are judged")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *kubeconfig, *node, *policyQueue, *gateQueue, *health); err != nil {
		klog.ErrorS(err, "Ending; pods' new connections are dropped until the agent runs again")
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, node string, policyQueue, gateQueue int, health string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods()
	if err := pods.Informer().AddIndexers(cache.Indexers{byAddress: addresses}); err != nil {
		return err
	}
	controller, err := networkpolicy.NewController(client,
		factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Namespaces(), pods,
		nil, nil, nil, nil,
		networkpolicy.Config{NodeName: node, QueueID: policyQueue})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	known := func(address string) bool {
		found, err := pods.Informer().GetIndexer().ByIndex(byAddress, address)
		return err == nil && len(found) > 0
	}
	if err := gate(ctx, uint16(gateQueue), known); err != nil {
		return err
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {})
	go func() { klog.ErrorS(http.ListenAndServe(health, nil), "Serving health") }()
	return controller.Run(ctx)
}

// addresses of a pod that has a network of its own and has not ended.
func addresses(object any) ([]string, error) {
	pod, ok := object.(*v1.Pod)
	if !ok || pod.Spec.HostNetwork || pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		return nil, nil
	}
	found := make([]string, 0, len(pod.Status.PodIPs))
	for _, address := range pod.Status.PodIPs {
		found = append(found, address.IP)
	}
	return found, nil
}

// gate answers the queue: a packet passes once its sender is known, and never before.
func gate(ctx context.Context, queue uint16, known func(string) bool) error {
	nf, err := nfqueue.Open(&nfqueue.Config{
		NfQueue: queue, MaxPacketLen: 64, MaxQueueLen: 4096,
		Copymode: nfqueue.NfQnlCopyPacket, Flags: nfqueue.NfQaCfgFlagGSO,
		WriteTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	answer := func(id uint32, verdict int) {
		if err := nf.SetVerdict(id, verdict); err != nil {
			klog.ErrorS(err, "Setting a verdict")
		}
	}
	judge := func(packet nfqueue.Attribute) int {
		id := *packet.PacketID
		sender, ok := source(packet.Payload)
		switch {
		case !ok:
			answer(id, nfqueue.NfDrop)
		case known(sender):
			answer(id, nfqueue.NfAccept)
		default:
			go func() {
				deadline := time.Now().Add(patience)
				for time.Now().Before(deadline) {
					if known(sender) {
						answer(id, nfqueue.NfAccept)
						return
					}
					time.Sleep(poll)
				}
				klog.InfoS("Dropping a packet of no known pod", "sender", sender)
				answer(id, nfqueue.NfDrop)
			}()
		}
		return 0
	}
	ignore := func(error) int { return 0 }
	if err := nf.RegisterWithErrorFunc(ctx, judge, ignore); err != nil {
		return err
	}
	go func() { <-ctx.Done(); nf.Close() }()
	return nil
}

// source address of an IPv4 packet (RFC 791: octets 12 to 15).
func source(payload *[]byte) (string, bool) {
	if payload == nil || len(*payload) < 20 || (*payload)[0]>>4 != 4 {
		return "", false
	}
	return netip.AddrFrom4([4]byte((*payload)[12:16])).String(), true
}
