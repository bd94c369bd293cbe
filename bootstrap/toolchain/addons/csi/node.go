package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// node is the CSI plug-in of one node (Container Storage Interface, "Node Service RPC").
type node struct {
	csi.UnimplementedNodeServer
	csi.UnimplementedIdentityServer
	registration.UnimplementedRegistrationServer
	name, endpoint string
	mounts         *http.Client
}

// serveNode answers the kubelet, which learns of the plug-in by the second socket.
func serveNode(ctx context.Context, name, kubelet string) error {
	n := &node{
		name: name, endpoint: filepath.Join(kubelet, "plugins", driver, "csi.sock"),
		mounts: &http.Client{Timeout: 2 * patience, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket(kubelet))
			},
		}},
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	csi.RegisterIdentityServer(server, n)
	csi.RegisterNodeServer(server, n)
	registration.RegisterRegistrationServer(server, n)
	ended := make(chan error, 2)
	for _, path := range []string{n.endpoint, filepath.Join(kubelet, "plugins_registry", driver+"-reg.sock")} {
		listener, err := listen(path)
		if err != nil {
			return err
		}
		go func() { ended <- server.Serve(listener) }()
	}
	go func() { <-ctx.Done(); server.GracefulStop() }()
	return <-ended
}

func logged(ctx context.Context, asked any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, asked)
	if err != nil {
		klog.ErrorS(err, "Failed", "what", info.FullMethod)
	}
	return answer, err
}

// ask the mounter; its reason becomes the event that people read.
func (n *node) ask(ctx context.Context, what string, asked request) error {
	body, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://mounter/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := n.mounts.Do(call)
	if err != nil {
		return status.Errorf(codes.Unavailable, "the node's mounter does not answer: %v", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
		return status.Error(codes.Internal, strings.TrimSpace(string(why)))
	}
	return nil
}

func (n *node) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	err := n.ask(ctx, "mount", request{Target: r.StagingTargetPath, Attributes: r.VolumeContext})
	return &csi.NodeStageVolumeResponse{}, err
}

func (n *node) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, n.ask(ctx, "end", request{Target: r.StagingTargetPath})
}

// NodePublishVolume mounts again what has died meanwhile: the kubelet asks for the stage only once.
func (n *node) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	err := n.ask(ctx, "mount", request{Target: r.StagingTargetPath, Attributes: r.VolumeContext})
	if err == nil {
		err = n.ask(ctx, "show", request{Target: r.TargetPath, Source: r.StagingTargetPath, ReadOnly: r.Readonly})
	}
	return &csi.NodePublishVolumeResponse{}, err
}

func (n *node) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, n.ask(ctx, "end", request{Target: r.TargetPath})
}

// NodeGetVolumeStats says how full a volume is, and whether its mount is alive.
func (n *node) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	var stat unix.Statfs_t
	err := unix.Statfs(r.VolumePath, &stat)
	if errors.Is(err, unix.ENOENT) {
		return nil, status.Error(codes.NotFound, "no such volume path")
	}
	if err != nil {
		return &csi.NodeGetVolumeStatsResponse{VolumeCondition: &csi.VolumeCondition{
			Abnormal: true, Message: "the mount has died (" + err.Error() + "); start the pod again",
		}}, nil
	}
	size := uint64(stat.Bsize)
	return &csi.NodeGetVolumeStatsResponse{
		Usage: []*csi.VolumeUsage{{
			Unit: csi.VolumeUsage_BYTES, Total: int64(stat.Blocks * size),
			Available: int64(stat.Bavail * size), Used: int64((stat.Blocks - stat.Bfree) * size),
		}},
		VolumeCondition: &csi.VolumeCondition{Message: "mounted"},
	}, nil
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, one := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_VOLUME_CONDITION,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: one}},
		})
	}
	return answer, nil
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (n *node) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driver, VendorVersion: "1"}, nil
}

func (n *node) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (n *node) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// GetInfo introduces the plug-in to the kubelet (pluginregistration v1).
func (n *node) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driver, Endpoint: n.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (n *node) NotifyRegistrationStatus(_ context.Context, said *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !said.PluginRegistered {
		klog.InfoS("The kubelet does not take the plug-in", "why", said.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}
